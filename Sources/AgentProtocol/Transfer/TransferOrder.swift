import Crypto
import JSON

/// Which way a transfer goes, as the core sees it.
public enum TransferDirection: String, Sendable, CaseIterable {
    /// From the core's store to the client's file.
    case push
    /// From the client's file to the core's store.
    case pull
}

/// What travels.
public enum TransferForm: String, Sendable, CaseIterable {
    /// The bytes of one regular file.
    case file
    /// A directory with what is in it, as one POSIX pax tar stream.
    case tree
}

/// What a tree does with symbolic links.
public enum LinkPolicy: String, Sendable, CaseIterable {
    /// They travel as links; one that leads out of the tree is refused.
    case keep
    case skip
}

/// What the core wants done with one file of one client. Sent when a transfer begins and each time it goes on.
public struct TransferOrder: Sendable, Equatable {
    public var transfer: TransferID
    public var direction: TransferDirection
    public var form: TransferForm
    /// Absolute, on the client.
    public var path: String
    /// Push: the length of the whole. Pull: the most that the core takes; more is refused.
    public var size: UInt64
    /// Pull: what the core has for good. Push: 0; the agent says where it goes on.
    public var from: UInt64
    /// Push: permission bits of the new file; `nil`: those of the file that it replaces, else 0644.
    public var mode: UInt16?
    /// Push: the time of the file, nanoseconds since 1970; `nil`: when it is written.
    public var modified: Int64?
    /// Push: a file that is there is replaced; else it is a refusal.
    public var replaces: Bool
    /// Push: missing directories above the path are made.
    public var makesParents: Bool
    public var links: LinkPolicy
    /// Where the bytes come from (push) or go to (pull) instead of the core; needs the feature `file-url`. The size is then
    /// the most that may move, for both directions.
    public var url: TransferURL?

    public init(
        transfer: TransferID, direction: TransferDirection, form: TransferForm = .file, path: String, size: UInt64,
        from: UInt64 = 0, mode: UInt16? = nil, modified: Int64? = nil, replaces: Bool = true, makesParents: Bool = false,
        links: LinkPolicy = .keep, url: TransferURL? = nil
    ) {
        self.transfer = transfer
        self.direction = direction
        self.form = form
        self.path = path
        self.size = size
        self.from = from
        self.mode = mode
        self.modified = modified
        self.replaces = replaces
        self.makesParents = makesParents
        self.links = links
        self.url = url
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("transfer", transfer.description)
            $0.field("direction", direction.rawValue)
            $0.field("form", form.rawValue)
            $0.field("path", path)
            $0.field("size", size)
            $0.field("from", from)
            $0.field("mode", ifPresent: mode.map { Int($0) })
            $0.field("modified_ns", ifPresent: modified)
            $0.field("replaces", replaces)
            $0.field("makes_parents", makesParents)
            $0.field("links", links.rawValue)
            url?.field(in: &$0)
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var transfer: TransferID?
            var direction: TransferDirection?
            var form: TransferForm?
            var path = ""
            var order = TransferOrder(transfer: TransferID(high: 0, low: 0), direction: .push, path: "", size: 0)
            try reader.object { key, reader throws(JSONError) in
                if key.is("transfer") {
                    transfer = TransferID(try reader.text(atMost: 26))
                } else if key.is("direction") {
                    direction = TransferDirection(rawValue: try reader.text(atMost: 16))
                } else if key.is("form") {
                    form = TransferForm(rawValue: try reader.text(atMost: 16))
                } else if key.is("path") {
                    path = try reader.text(atMost: WireLimits.pathBytes)
                } else if key.is("size") {
                    order.size = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("from") {
                    order.from = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("mode") {
                    order.mode = UInt16(try reader.integer(in: 0...0o7777))
                } else if key.is("modified_ns") {
                    order.modified = Int64(try reader.integer(in: Int(Int64.min)...Int(Int64.max)))
                } else if key.is("replaces") {
                    order.replaces = try reader.bool()
                } else if key.is("makes_parents") {
                    order.makesParents = try reader.bool()
                } else if key.is("links") {
                    guard let links = LinkPolicy(rawValue: try reader.text(atMost: 16)) else {
                        throw reader.fail("links are kept or skipped")
                    }
                    order.links = links
                } else if key.is("url") {
                    order.url = try TransferURL(reading: &reader)
                }
            }
            guard let transfer, let direction, let form else { throw reader.fail("a transfer has an id, a direction and a form") }
            order.transfer = transfer
            order.direction = direction
            order.form = form
            order.path = path
            guard order.url == nil || form == .file else { throw reader.fail("only a single file moves between client and URL") }
            return order
        }
    }
}

/// `transfer-ready`: the agent has its end open, and goes on at the header's offset.
public struct TransferReady: Sendable, Equatable {
    /// Pull: what the client's file is. A tree says no size before its end.
    public var size: UInt64?
    public var mode: UInt16?
    public var modified: Int64?

    public init(size: UInt64? = nil, mode: UInt16? = nil, modified: Int64? = nil) {
        self.size = size
        self.mode = mode
        self.modified = modified
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("size", ifPresent: size)
            $0.field("mode", ifPresent: mode.map { Int($0) })
            $0.field("modified_ns", ifPresent: modified)
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var ready = TransferReady()
            try reader.object { key, reader throws(JSONError) in
                if key.is("size") {
                    ready.size = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("mode") {
                    ready.mode = UInt16(try reader.integer(in: 0...0o7777))
                } else if key.is("modified_ns") {
                    ready.modified = Int64(try reader.integer(in: Int(Int64.min)...Int(Int64.max)))
                }
            }
            return ready
        }
    }
}

/// `transfer-result`: the agent's last word. A push that is done, or why a transfer of either direction cannot be.
public struct TransferResult: Sendable, Equatable {
    /// `nil`: done, the file is in its place.
    public var failure: FileFailure?
    /// Of the whole, what was written or read.
    public var bytes: UInt64
    /// A tree's entries that were made, and those left out by policy.
    public var entries: UInt64
    public var skipped: UInt64
    /// Of what moved between file and URL; the core has not seen it.
    public var digest: SHA256.Digest?

    public init(failure: FileFailure? = nil, bytes: UInt64 = 0, entries: UInt64 = 0, skipped: UInt64 = 0, digest: SHA256.Digest? = nil) {
        self.failure = failure
        self.bytes = bytes
        self.entries = entries
        self.skipped = skipped
        self.digest = digest
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("code", ifPresent: failure?.code)
            $0.field("message", ifPresent: failure.map { String($0.message.prefix(2_000)) })
            $0.field("bytes", bytes)
            $0.field("entries", entries)
            $0.field("skipped", skipped)
            $0.field("sha256", ifPresent: digest?.hex)
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var result = TransferResult()
            var code: String?
            var message = ""
            try reader.object { key, reader throws(JSONError) in
                if key.is("code") {
                    code = try reader.text(atMost: WireLimits.refusalCodeBytes)
                } else if key.is("message") {
                    message = try reader.text(atMost: 3 * WireLimits.refusalTextBytes)
                } else if key.is("bytes") {
                    result.bytes = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("entries") {
                    result.entries = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("skipped") {
                    result.skipped = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("sha256") {
                    result.digest = try SHA256.Digest(reading: &reader)
                }
            }
            result.failure = code.map { FileFailure($0, message) }
            return result
        }
    }
}

/// Why file work on a client failed: a stable code (Docs/errors.md) and words.
public struct FileFailure: Error, Sendable, Equatable, CustomStringConvertible {
    public var code: String
    public var message: String

    public init(_ code: String, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "\(code): \(message)" }
}
