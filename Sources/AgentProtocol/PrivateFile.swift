/// A small file of secret content that the core places on a client, in memory and not on its disk.
///
/// Names, owners and times may be told to anybody who may see the client; content never is. `keeper` is who placed it
/// (a plugin's id): one keeper never sees or changes what another has placed.
public struct PrivateFileOrder: Sendable, Equatable {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`, the first no dot and no dash: a name below the agent's directory for private files.
    public var name: String
    public var keeper: String
    /// A user of the client; `nil`: the agent's own.
    public var owner: String?
    /// A group of the client; `nil`: the owner's primary one.
    public var group: String?
    /// Of 0660: reading and writing for owner and group, nothing else.
    public var mode: UInt16
    /// From now until the agent removes it; `nil`: until somebody does, or the machine restarts.
    public var lifetimeMilliseconds: UInt64?
    /// What the agent does after a change, if its local policy allows exactly that; empty: nothing. See `PrivateFileHook`.
    public var hook: [String]

    public init(
        name: String, keeper: String, owner: String? = nil, group: String? = nil, mode: UInt16 = 0o400,
        lifetimeMilliseconds: UInt64? = nil, hook: [String] = []
    ) {
        self.name = name
        self.keeper = keeper
        self.owner = owner
        self.group = group
        self.mode = mode
        self.lifetimeMilliseconds = lifetimeMilliseconds
        self.hook = hook
    }
}

/// What the core may ask an agent about private files.
public enum PrivateFileRequest: Sendable, Equatable {
    /// Places it, or replaces the one with this name as a whole; what is there already stays untouched but for its time.
    case put(PrivateFileOrder, content: [UInt8])
    /// Also when there is none.
    case remove(name: String, keeper: String)
    /// What this keeper has placed and is still there.
    case list(keeper: String)
}

/// One private file as it is on the client now; the proof of what is applied.
public struct PrivateFileState: Sendable, Equatable {
    public var name: String
    /// Where the client's programs find it.
    public var path: String
    public var bytes: UInt64
    /// SHA-256 of what the file holds, read when it was asked for, as 64 hexadecimal digits. Whoever knows a few
    /// possible contents can tell by it which one is there: it goes to the keeper, and into no log.
    public var sha256: String
    public var owner: String
    public var mode: UInt16
    public var expiresInMilliseconds: UInt64?
    /// Why the hook of the last change did not do its work.
    public var hookFault: String?

    public init(
        name: String, path: String, bytes: UInt64, sha256: String, owner: String, mode: UInt16,
        expiresInMilliseconds: UInt64? = nil, hookFault: String? = nil
    ) {
        self.name = name
        self.path = path
        self.bytes = bytes
        self.sha256 = sha256
        self.owner = owner
        self.mode = mode
        self.expiresInMilliseconds = expiresInMilliseconds
        self.hookFault = hookFault
    }
}

/// The agent's answer to one request.
public enum PrivateFileAnswer: Sendable, Equatable {
    /// The file that was put, none for a removal, all of the keeper's for a list. `isChanged`: the request changed something.
    case done([PrivateFileState], isChanged: Bool)
    /// Nothing was changed. The code is stable (`private-file-…`), the text is for people.
    case refused(code: String, message: String)
}

/// Bounds of private files, on both sides of the wire.
public enum PrivateFileLimits {
    /// Of one file's content: what an order fits into with the rest of its frame.
    public static let contentBytes = (1 << 20) - headBytes
    /// Of the JSON before the content.
    public static let headBytes = 8 * 1_024
    /// Files of one agent, and their bytes together.
    public static let files = 64
    public static let totalBytes = 8 << 20
    public static let hookWords = 32
    public static let hookWordBytes = 1_024
    public static let hookBytes = 4_096
    public static let nameBytes = 64
    public static let keeperBytes = 128
    public static let faultBytes = 200
    /// Ten years: more is no time limit.
    public static let lifetimeMilliseconds: UInt64 = 10 * 366 * 86_400_000
}

extension PrivateFileOrder {
    /// Why this order must not be sent or taken; `nil`: it may.
    public var fault: String? {
        if let fault = Self.fault(inName: name) { return fault }
        if keeper.isEmpty || keeper.utf8.count > PrivateFileLimits.keeperBytes { return "the keeper is empty or too long" }
        for text in [owner, group] {
            if let text, text.isEmpty || text.utf8.count > 64 || text.utf8.contains(0) {
                return "owner and group are names of 1 to 64 bytes"
            }
        }
        guard mode & ~0o660 == 0, mode & 0o440 != 0 else {
            return "the mode \(String(mode, radix: 8)) is none of reading and writing for owner and group (0400 to 0660)"
        }
        if let lifetimeMilliseconds, !(1...PrivateFileLimits.lifetimeMilliseconds).contains(lifetimeMilliseconds) {
            return "the lifetime is \(lifetimeMilliseconds) ms; 1 to \(PrivateFileLimits.lifetimeMilliseconds) are allowed"
        }
        guard hook.isEmpty else { return Self.fault(inHook: hook) }
        return nil
    }

    public static func fault(inName name: String) -> String? {
        let bytes = name.utf8
        let isPlain = bytes.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2E
                || $0 == 0x5F || $0 == 0x2D
        }
        guard (1...PrivateFileLimits.nameBytes).contains(bytes.count), isPlain, bytes.first != 0x2E, bytes.first != 0x2D else {
            return "a private file's name has 1 to 64 of A-Z a-z 0-9 . _ -, and begins with none of . and -"
        }
        return nil
    }

    static func fault(inHook hook: [String]) -> String? {
        guard hook.count <= PrivateFileLimits.hookWords,
            hook.allSatisfy({ !$0.isEmpty && $0.utf8.count <= PrivateFileLimits.hookWordBytes && !$0.utf8.contains(0) }),
            hook.reduce(0, { $0 + $1.utf8.count }) <= PrivateFileLimits.hookBytes
        else { return "a hook has at most 32 words of 1 to 1,024 bytes without NUL, 4,096 bytes in all" }
        return PrivateFileHook(hook) == nil ? PrivateFileHook.forms : nil
    }
}

/// What an agent may do after a private file has changed, as words that its local policy is asked about.
public enum PrivateFileHook: Sendable, Equatable {
    /// `reload UNIT`
    case reload(unit: String)
    /// `restart UNIT`
    case restart(unit: String)
    /// `signal NAME UNIT`, or `signal NAME /path/of/a.pid`
    case signal(TerminalSignal, target: String)
    /// `run PROGRAM …`
    case run([String])

    static let forms =
        "a hook is [reload, UNIT], [restart, UNIT], [signal, HUP|INT|QUIT|KILL|USR1|USR2|TERM, UNIT or PID-FILE] or [run, PROGRAM, …]"

    public init?(_ words: [String]) {
        switch (words.first, words.count) {
        case ("reload", 2) where Self.isUnit(words[1]): self = .reload(unit: words[1])
        case ("restart", 2) where Self.isUnit(words[1]): self = .restart(unit: words[1])
        case ("signal", 3) where Self.isUnit(words[2]) || words[2].utf8.first == 0x2F:
            guard let signal = Self.signals[words[1]] else { return nil }
            self = .signal(signal, target: words[2])
        case ("run", 2...): self = .run(Array(words.dropFirst()))
        default: return nil
        }
    }

    private static let signals: [String: TerminalSignal] = [
        "HUP": .hangUp, "INT": .interrupt, "QUIT": .quit, "KILL": .kill, "USR1": .user1, "USR2": .user2, "TERM": .terminate,
    ]

    /// No option, no path: systemctl takes it for nothing else.
    private static func isUnit(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 256 && text.utf8.first != 0x2D
            && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != 0x2F }
    }
}
