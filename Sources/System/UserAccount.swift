import Glibc

/// A user of this machine as the system's databases tell (files, LDAP, …).
public struct UserAccount: Sendable, Equatable {
    public var name: String
    public var user: uid_t
    public var group: gid_t
    /// All groups, the primary one included.
    public var groups: [gid_t]
    public var home: String
    public var shell: String

    public init(name: String, user: uid_t, group: gid_t, groups: [gid_t], home: String, shell: String) {
        self.name = name
        self.user = user
        self.group = group
        self.groups = groups
        self.home = home
        self.shell = shell
    }

    /// By name, or by number if the text is one. `nil`: no such user. Blocks while the databases are asked.
    public static func find(_ text: String) throws(SystemError) -> UserAccount? {
        if let number = uid_t(text) { return try look(text) { getpwuid_r(number, $0, $1, $2, $3) } }
        return try look(text) { getpwnam_r(text, $0, $1, $2, $3) }
    }

    /// The user that this process runs as.
    public static func current() throws(SystemError) -> UserAccount {
        let user = geteuid()
        if let account = try look("\(user)", { getpwuid_r(user, $0, $1, $2, $3) }) { return account }
        return UserAccount(name: "\(user)", user: user, group: getegid(), groups: [getegid()], home: "/", shell: "/bin/sh")
    }

    private static func look(
        _ text: String,
        _ call: (
            UnsafeMutablePointer<passwd>, UnsafeMutablePointer<CChar>, Int,
            UnsafeMutablePointer<UnsafeMutablePointer<passwd>?>
        ) -> Int32
    ) throws(SystemError) -> UserAccount? {
        var size = 1_024
        while true {
            let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: size)
            defer { buffer.deallocate() }
            var entry = passwd()
            var found: UnsafeMutablePointer<passwd>?
            let code = call(&entry, buffer, size, &found)
            if code == ERANGE, size < 1 << 20 {
                size *= 4
                continue
            }
            if code != 0, code != ENOENT, code != ESRCH { throw SystemError("getpwnam_r", text, code: code) }
            guard found != nil, let name = entry.pw_name else { return nil }
            return UserAccount(
                name: String(cString: name), user: entry.pw_uid, group: entry.pw_gid,
                groups: groups(of: name, primary: entry.pw_gid),
                home: entry.pw_dir.map { String(cString: $0) } ?? "/",
                shell: entry.pw_shell.map { String(cString: $0) } ?? "/bin/sh")
        }
    }

    private static func groups(of name: UnsafePointer<CChar>, primary: gid_t) -> [gid_t] {
        var capacity: Int32 = 64
        while true {
            var groups = [gid_t](repeating: 0, count: Int(capacity))
            var count = capacity
            if getgrouplist(name, primary, &groups, &count) >= 0 { return Array(groups[..<Int(count)]) }
            guard count > capacity, count <= 65_536 else { return [primary] }
            capacity = count
        }
    }
}

/// A group of this machine.
public enum UserGroup {
    /// Its number, by name or by number. `nil`: no such group. Blocks while the databases are asked.
    public static func find(_ text: String) throws(SystemError) -> gid_t? {
        var size = 1_024
        while true {
            let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: size)
            defer { buffer.deallocate() }
            var entry = group()
            var found: UnsafeMutablePointer<group>?
            let code =
                gid_t(text).map { getgrgid_r($0, &entry, buffer, size, &found) }
                ?? getgrnam_r(text, &entry, buffer, size, &found)
            if code == ERANGE, size < 1 << 20 {
                size *= 4
                continue
            }
            if code != 0, code != ENOENT, code != ESRCH { throw SystemError("getgrnam_r", text, code: code) }
            return found == nil ? nil : entry.gr_gid
        }
    }
}
