import CPluginABI
import PluginKit
import SecretServices
import Synchronization

/// The service client-manager.secret/1, as service/client_manager_secret.h declares it: secrets that are shared with plugins.
///
/// Its functions run on their callers' threads. They look at the vault, which has a lock of its own, and write the audit record.
final class SecretService: Sendable {
    private let vault: Vault
    private let audit: Audit

    /// That of the newest `load`: the functions below outlive every one of them.
    private static let shared = Mutex<SecretService?>(nil)

    private init(_ vault: Vault, _ audit: Audit) { (self.vault, self.audit) = (vault, audit) }

    static func publish(_ host: Host, _ vault: Vault) throws(PluginError) {
        let service = SecretService(vault, try host.audit())
        shared.withLock { $0 = service }
        try host.services().publish(CM_SERVICE_SECRET, table)
    }

    /// At one address for the life of the process: others may still look at it after `stop`.
    ///
    /// Unchecked by the compiler: written once, before anybody sees it.
    nonisolated(unsafe) private static let table: UnsafePointer<cm_secret_service> = {
        let table = UnsafeMutablePointer<cm_secret_service>.allocate(capacity: 1)
        table.initialize(
            to: cm_secret_service(
                head: cm_head(size: UInt32(MemoryLayout<cm_secret_service>.size), revision: 1), get: secretGet, version: secretVersion))
        return UnsafePointer(table)
    }()

    static var current: SecretService? { ServiceState.isStopped ? nil : shared.withLock { $0 } }

    /// What is not shared is not there.
    private func shown(_ name: cm_text) -> Secret? {
        guard name.size <= UInt64(Secret.nameBytes), let data = name.data else { return nil }
        let text = String(decoding: UnsafeRawBufferPointer(start: data, count: Int(name.size)), as: UTF8.self)
        guard let secret = vault.find(text), secret.isShared, secret.current != 0 else { return nil }
        return secret
    }

    fileprivate func version(_ name: cm_text, _ found: UnsafeMutablePointer<UInt64>) -> cm_status {
        guard let secret = shown(name) else { return CM_E_NOT_FOUND }
        found.pointee = UInt64(secret.current)
        return CM_OK
    }

    fileprivate func get(
        _ name: cm_text, _ version: UInt64, _ value: UnsafeMutablePointer<cm_buffer>, _ found: UnsafeMutablePointer<UInt64>?
    ) -> cm_status {
        guard let secret = shown(name), let wanted = secret.version(version == 0 ? secret.current : Int(clamping: version)) else {
            return CM_E_NOT_FOUND
        }
        value.pointee.size = UInt64(wanted.bytes)
        guard UInt64(wanted.bytes) <= value.pointee.capacity, let room = value.pointee.data else { return CM_E_TOO_SMALL }
        do throws(PluginError) {
            try audit.write("secrets.service-read", target: secret.name, detail: ["version": .integer(Int64(wanted.number))])
            let bytes = try vault.value(secret.name, wanted.number)
            guard bytes.count <= Int(clamping: value.pointee.capacity) else { return CM_E_TOO_SMALL }
            value.pointee.size = UInt64(bytes.count)
            UnsafeMutableRawBufferPointer(start: room, count: bytes.count).copyBytes(from: bytes)
            found?.pointee = UInt64(wanted.number)
            return CM_OK
        } catch {
            return error.status.rawValue < 0 ? error.status.rawValue : CM_E_INTERNAL
        }
    }
}

private func secretGet(
    _ context: UnsafeMutableRawPointer?, _ name: cm_text, _ version: UInt64, _ value: UnsafeMutablePointer<cm_buffer>,
    _ found: UnsafeMutablePointer<UInt64>?
) -> cm_status {
    guard let service = SecretService.current else { return CM_E_GONE }
    return service.get(name, version, value, found)
}

private func secretVersion(
    _ context: UnsafeMutableRawPointer?, _ name: cm_text, _ version: UnsafeMutablePointer<UInt64>
) -> cm_status {
    guard let service = SecretService.current else { return CM_E_GONE }
    return service.version(name, version)
}
