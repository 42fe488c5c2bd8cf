import CLinux
import Glibc

/// Threads for work that blocks. Loops have their own; nothing else starts threads.
public enum NativeThread {
    /// Starts a detached thread that runs `body` once. All signals but those of faults are blocked in it, so that only the thread made for
    /// it takes them.
    /// - Parameters:
    ///   - name: at most 15 bytes are kept by the kernel.
    ///   - stackBytes: address space, touched pages alone cost memory.
    public static func start(
        name: String, stackBytes: Int = 512 << 10, _ body: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        pthread_attr_setstacksize(&attributes, stackBytes)

        var everything = sigset_t()
        var before = sigset_t()
        sigfillset(&everything)
        // A fault that is blocked would end the process without a record of whose it was.
        for fault in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT] { sigdelset(&everything, fault) }
        pthread_sigmask(SIG_SETMASK, &everything, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }

        let box = Unmanaged.passRetained(ThreadBody(name: name, run: body))
        var thread = pthread_t()
        let code = pthread_create(
            &thread, &attributes,
            { argument in
                guard let argument else { return nil }
                let body = Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue()
                cm_thread_set_name(body.name)
                _ = cm_crash_use_own_stack()
                body.run()
                cm_crash_release_own_stack()
                return nil
            }, box.toOpaque())
        guard code == 0 else {
            box.release()
            throw SystemError("pthread_create", name, code: code)
        }
    }
}

private final class ThreadBody: Sendable {
    let name: String
    let run: @Sendable () -> Void
    init(name: String, run: @escaping @Sendable () -> Void) {
        self.name = name
        self.run = run
    }
}
