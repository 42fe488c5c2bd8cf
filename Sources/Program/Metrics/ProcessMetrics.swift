import Glibc

/// User and system time of all threads of this process so far, in nanoseconds.
public func processorNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}

extension Metrics {
    /// What every program reports about itself, read when scraped.
    public func registerProcess() {
        let started = Double(Timestamp.now().milliseconds) / 1000
        reading("process_start_time_seconds", "Start of the process since the Unix epoch in seconds.") { started }
        reading("process_resident_memory_bytes", "Resident memory size in bytes.") {
            // statm: size resident shared … in pages
            guard let bytes = try? readSmallFile("/proc/self/statm", limit: 4096) else { return .nan }
            let fields = bytes.split(separator: UInt8(ascii: " "))
            guard fields.count > 1, let pages = Double(String(decoding: fields[1], as: UTF8.self)) else { return .nan }
            return pages * Double(sysconf(Int32(_SC_PAGESIZE)))
        }
        reading("process_cpu_seconds_total", "User and system time of all threads in seconds.", isTotal: true) {
            Double(processorNanoseconds()) / 1e9
        }
        reading("process_open_fds", "Open file descriptors.") {
            // Since Linux 6.2 the directory's size is their number (proc(5)); a walk over ten thousand holds up a loop for 20 ms.
            var information = stat()
            if stat("/proc/self/fd", &information) == 0, information.st_size > 0 { return Double(information.st_size) }
            guard let directory = opendir("/proc/self/fd") else { return .nan }
            defer { closedir(directory) }
            var count = -3.0  // ".", ".." and the descriptor of this very listing
            while readdir(directory) != nil { count += 1 }
            return count
        }
    }
}
