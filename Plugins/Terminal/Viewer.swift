import PluginKit

/// One WebSocket on a session. Everything but the constants is touched only under the session's lock.
///
/// Unchecked: that lock.
final class Viewer: @unchecked Sendable {
    enum Mode: String, Sendable {
        case viewer, typist
    }

    let mode: Mode
    let actor: String
    let joinedAt: UInt64
    var socket: WebSocket?
    /// Next byte of output that it gets, while it is behind.
    var position: UInt64
    /// It got output before: a jump now means that it was too slow.
    var hasBegun = false
    /// Gets output as it comes. One that is not is served from the ring until it is.
    var isCaughtUp = false
    /// Somebody sends from the ring now; who comes meanwhile leaves word.
    var isPumping = false
    var pumpsAgain = false
    /// The end was told.
    var isDone = false
    /// Input that the channel had no room for; the socket is not read meanwhile.
    var pendingInput: [UInt8] = []
    var isWriting = false

    init(mode: Mode, actor: String, joinedAt: UInt64, position: UInt64) {
        self.mode = mode
        self.actor = actor
        self.joinedAt = joinedAt
        self.position = position
    }
}
