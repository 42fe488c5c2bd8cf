import CPluginABI
import PluginKit
import PluginService

/// The service com.example.helloswift/1, as service/helloswift.h declares it. Its function runs on its caller's thread, so
/// it reads only what was written before the service was published.
///
/// Unchecked: immutable.
final class GreetingService: @unchecked Sendable {
    private let greeting: [UInt8]

    private init(_ greeting: String) { self.greeting = Array("\(greeting), ".utf8) }

    /// The table and its context stay for the life of the process: others may still look at them after `stop`.
    static func table(greeting: String) -> UnsafePointer<helloswift_service> {
        shared = GreetingService(greeting)
        let table = UnsafeMutablePointer<helloswift_service>.allocate(capacity: 1)
        table.initialize(
            to: helloswift_service(
                head: cm_head(size: UInt32(MemoryLayout<helloswift_service>.size), revision: 1), greet: greetSomebody))
        return UnsafePointer(table)
    }

    /// Written once, in `load`, before anybody can call.
    nonisolated(unsafe) fileprivate static var shared: GreetingService?

    fileprivate func greet(_ name: cm_text, _ result: UnsafeMutablePointer<cm_buffer>) -> cm_status {
        guard name.size <= 256 else { return CM_E_TOO_LARGE }
        let name = UnsafeRawBufferPointer(start: name.data, count: Int(name.size))
        let size = greeting.count + name.count + 1
        result.pointee.size = UInt64(size)
        guard UInt64(size) <= result.pointee.capacity, let data = result.pointee.data else { return CM_E_TOO_SMALL }
        let room = UnsafeMutableRawBufferPointer(start: data, count: size)
        room.copyBytes(from: greeting)
        UnsafeMutableRawBufferPointer(rebasing: room[greeting.count...]).copyMemory(from: name)
        room[size - 1] = UInt8(ascii: "!")
        return CM_OK
    }
}

private func greetSomebody(
    _ context: UnsafeMutableRawPointer?, _ name: cm_text, _ result: UnsafeMutablePointer<cm_buffer>
) -> cm_status {
    guard !ServiceState.isStopped, let service = GreetingService.shared else { return CM_E_GONE }
    return service.greet(name, result)
}
