import Glibc
import System

/// A thread whose end can be waited for.
///
/// `@unchecked Sendable`: the semaphore is made for use across threads and lives as long as this object.
final class StoreThread: @unchecked Sendable {
    private let ended = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init(name: String, _ body: @escaping @Sendable () -> Void) throws(StoreError) {
        sem_init(ended, 0, 0)
        do {
            try NativeThread.start(name: name) { [self] in
                body()
                sem_post(ended)
            }
        } catch {
            throw .failed(code: error.code, message: "a thread could not be started: \(error)")
        }
    }

    deinit {
        sem_destroy(ended)
        ended.deallocate()
    }

    /// Blocks until the body has returned. Once, and never on a loop.
    func join() {
        while sem_wait(ended) != 0 {}
    }
}

/// Carries something that is not Sendable into the thread that will own it.
///
/// `@unchecked Sendable`: the maker gives it up (`sending`), and one closure on one thread opens it.
struct Parcel<Content>: @unchecked Sendable {
    let content: Content
    init(_ content: sending Content) { self.content = content }
}
