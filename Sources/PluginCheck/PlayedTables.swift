import CPluginABI
import Glibc

/// The tables that the played core hands out, each at the very end of its pages: one byte past what its head says is a
/// page that nobody may touch, so a plugin that reads a field which is not there is caught in the act.
final class PlayedTables: Sendable {
    enum Shape: Sendable, Equatable {
        /// As this version of the header has them.
        case whole
        /// Cut behind so many functions: an older core.
        case functions(Int)
        /// With more behind, filled with addresses that crash: a newer core.
        case larger
    }

    struct Table: @unchecked Sendable {
        /// Never written after it was made.
        let pointer: UnsafeMutableRawPointer
        let size: Int
        let capability: [String]?
    }

    let tables: [String: Table]
    /// Set before the plugin is loaded, never changed after.
    nonisolated(unsafe) static var shared = PlayedTables(.whole)

    init(_ shape: Shape) {
        var tables: [String: Table] = [:]
        func add<Functions>(_ identifier: String, _ capability: [String]?, _ table: Functions) {
            let placed = Self.place(table, shape)
            tables[identifier] = Table(pointer: placed.pointer, size: placed.size, capability: capability)
        }
        add(CM_INTERFACE_LOG, nil, cm_log(head: cm_head(), write: logWrite, is_enabled: logIsEnabled))
        add(CM_INTERFACE_CONFIG, nil, cm_config(head: cm_head(), read: configRead, get: configGet))
        add(
            CM_INTERFACE_SERVICES, nil,
            cm_services(
                head: cm_head(), publish: servicesPublish, withdraw: servicesWithdraw, acquire: servicesAcquire,
                release: servicesRelease, watch: servicesWatch, unwatch: servicesUnwatch))
        add(
            CM_INTERFACE_HTTP, [CM_CAPABILITY_HTTP],
            cm_http(
                head: cm_head(), route_add: httpRouteAdd, route_remove: httpRouteRemove, asset_add: httpAssetAdd,
                request_get: httpRequestGet, request_may: httpRequestMay, request_more: httpRequestMore,
                respond: httpRespond, respond_problem: httpRespondProblem, respond_begin: httpRespondBegin,
                respond_write: httpRespondWrite, respond_end: httpRespondEnd, respond_abort: httpRespondAbort,
                websocket_accept: httpWebSocketAccept, websocket_send: httpWebSocketSend,
                websocket_receive: httpWebSocketReceive, websocket_close: httpWebSocketClose, ticket_issue: httpTicketIssue))
        add(
            CM_INTERFACE_CLIENTS, [CM_CAPABILITY_CLIENTS],
            cm_clients(
                head: cm_head(), get: clientsGet, select: clientsSelect, is_online: clientsIsOnline,
                set_labels: clientsSetLabels, select_asserted: clientsSelectAsserted))
        add(
            CM_INTERFACE_COMMANDS, [CM_CAPABILITY_COMMANDS, CM_CAPABILITY_FILTER],
            cm_commands(
                head: cm_head(), run: commandsRun, watch: commandsWatch, unwatch: commandsUnwatch, cancel: commandsCancel,
                output: commandsOutput, run_with_secrets: commandsRunWithSecrets, filter_add: commandsFilterAdd,
                filter_remove: commandsFilterRemove))
        add(
            CM_INTERFACE_CHANNELS, [CM_CAPABILITY_CHANNELS],
            cm_channels(
                head: cm_head(), open: channelsOpen, attach: channelsAttach, list: channelsList, write: channelsWrite,
                grant: channelsGrant, resize: channelsResize, close: channelsClose, detach: channelsDetach))
        add(
            CM_INTERFACE_ENROLLMENT, [CM_CAPABILITY_ENROLLMENT],
            cm_enrollment(
                head: cm_head(), core: enrollmentCore, token_create: enrollmentTokenCreate,
                token_revoke: enrollmentTokenRevoke, agent: enrollmentAgent, agent_read: enrollmentAgentRead))
        add(
            CM_INTERFACE_PRIVATE_FILES, [CM_CAPABILITY_PRIVATE],
            cm_private_files(head: cm_head(), put: privateFilesPut, remove: privateFilesRemove, list: privateFilesList))
        add(
            CM_INTERFACE_JOBS, [CM_CAPABILITY_JOBS],
            cm_jobs(
                head: cm_head(), kind_add: jobsKindAdd, kind_remove: jobsKindRemove, submit: jobsSubmit, cancel: jobsCancel,
                get: jobsGet, checkpoint: jobsCheckpoint, progress: jobsProgress, log: jobsLog, finish: jobsFinish))
        add(
            CM_INTERFACE_EVENTS, [CM_CAPABILITY_EVENTS],
            cm_events(
                head: cm_head(), publish: eventsPublish, subscribe: eventsSubscribe, unsubscribe: eventsUnsubscribe))
        add(
            CM_INTERFACE_STORE, [CM_CAPABILITY_STORE],
            cm_store(
                head: cm_head(), get: storeGet, list: storeList, begin: storeBegin, put: storePut, remove: storeRemove,
                expect: storeExpect, commit: storeCommit, discard: storeDiscard, blob_append: storeBlobAppend,
                blob_sync: storeBlobSync, blob_read: storeBlobRead, blob_size: storeBlobSize,
                blob_remove: storeBlobRemove))
        add(
            CM_INTERFACE_FILES, [CM_CAPABILITY_FILES],
            cm_files(
                head: cm_head(), create: filesCreate, resume: filesResume, append: filesAppend, sync: filesSync,
                seal: filesSeal, release: filesRelease, discard: filesDiscard, get: filesGet, list: filesList,
                open: filesOpen, read: filesRead, close: filesClose, remove: filesRemove,
                transfer_start: filesTransferStart, transfer_watch: filesTransferWatch,
                transfer_unwatch: filesTransferUnwatch, transfer_cancel: filesTransferCancel,
                client_list: filesClientList, client_status: filesClientStatus, client_hash: filesClientHash,
                client_make_directory: filesClientMakeDirectory, client_rename: filesClientRename,
                client_remove: filesClientRemove))
        add(
            CM_INTERFACE_CRYPTO, nil,
            cm_crypto(
                head: cm_head(), random: cryptoRandom, sha256: cryptoSHA256, hmac_sha256: cryptoHMAC, seal: cryptoSeal,
                unseal: cryptoUnseal, encrypt: cryptoEncrypt, decrypt: cryptoDecrypt))
        add(
            CM_INTERFACE_AUDIT, [CM_CAPABILITY_AUDIT, CM_CAPABILITY_AUDIT_READ],
            cm_audit(head: cm_head(), write: auditWrite, sink: auditSink, sink_remove: auditSinkRemove))
        add(
            CM_INTERFACE_METRICS, nil,
            cm_metrics(head: cm_head(), define: metricsDefine, add: metricsAdd, set: metricsSet))
        add(
            CM_INTERFACE_EXECUTOR, nil,
            cm_executor(
                head: cm_head(), post: executorPost, blocking: executorBlocking, timer: executorTimer,
                timer_cancel: executorTimerCancel, now_ms: executorNow, is_own_thread: executorIsOwnThread))
        self.tables = tables
    }

    /// The host's own table, with the same care; it is never cut: all of it belongs to revision 1.
    static func host(_ shape: Shape) -> UnsafePointer<cm_host> {
        let host = cm_host(
            head: cm_head(), context: playedContext, abi_major: UInt32(CM_ABI_MAJOR),
            abi_minor: shape == .larger ? 99 : UInt32(CM_ABI_MINOR), interface_get: hostInterfaceGet)
        let placed = place(host, shape == .larger ? .larger : .whole).pointer
        return UnsafePointer(placed.assumingMemoryBound(to: cm_host.self))
    }

    private static func place<Functions>(
        _ table: Functions, _ shape: Shape
    ) -> (pointer: UnsafeMutableRawPointer, size: Int) {
        let whole = MemoryLayout<Functions>.size
        let size =
            switch shape {
            case .whole: whole
            case .functions(let count): min(whole, MemoryLayout<cm_head>.size + 8 * count)
            case .larger: whole + 256
            }
        let page = 4096
        let mapped = mmap(nil, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let base = mapped, base != MAP_FAILED else { return (.allocate(byteCount: whole, alignment: 8), whole) }
        let pointer = base + page - size
        // An address on no page that is mapped: whoever calls what it does not know crashes there.
        for offset in stride(from: 0, to: size, by: 8) { pointer.storeBytes(of: 0xDEAD_0000_0000, toByteOffset: offset, as: UInt.self) }
        withUnsafeBytes(of: table) { pointer.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(pointer), byteCount: min(size, whole)) }
        pointer.storeBytes(of: cm_head(size: UInt32(size), revision: 1), as: cm_head.self)
        mprotect(base, page, PROT_READ)
        mprotect(base + page, page, PROT_NONE)
        return (pointer, size)
    }
}
