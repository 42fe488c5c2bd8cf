import Glibc

/// A group commit lets go of hundreds of small objects at once and takes as many for the next one. glibc's malloc keeps
/// only seven freed blocks of a size for each thread; the rest goes through its shared arenas, which cost the core a
/// sixth of its processor time. And it asks the kernel for the memory of each large block anew and gives it back, page by page:
/// half of the processor time of a file on its way through. The numbers can only be given by the environment of a program that starts.
enum AllocatorTuning {
    private static let variable = "GLIBC_TUNABLES"
    /// Blocks from 4 MiB on, and free memory at the end of a heap beyond that, go back to the kernel.
    private static let tunables = [
        "tcache_count=256", "top_pad=524288", "mmap_threshold=4194304", "trim_threshold=4194304",
    ]

    /// Starts the program anew with a larger cache, unless somebody has set the variable. Before any thread. Goes on
    /// as it is where the program cannot be started again.
    static func restartOnce() {
        let value = tunables.map { "glibc.malloc." + $0 }.joined(separator: ":")
        guard getenv(variable) == nil, setenv(variable, value, 1) == 0 else { return }
        var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        // By its own path: the name of the link would become the name of the process.
        guard readlink("/proc/self/exe", &path, Int(PATH_MAX)) > 0 else { return }
        execv(path, CommandLine.unsafeArgv)
    }
}
