/// Prepared statements by the address of their literal: one literal, one statement, found without hashing text. A core
/// has a few hundred, and a request looks up several, so this is open addressing without the standard dictionary's
/// keyed hash: addresses of literals come from nobody outside.
struct StatementTable {
    private var keys: [UInt]
    private var statements: [OpaquePointer?]
    private var count = 0

    init() {
        keys = [UInt](repeating: 0, count: 64)
        statements = [OpaquePointer?](repeating: nil, count: 64)
    }

    var all: [OpaquePointer] { statements.compactMap { $0 } }

    subscript(_ key: UInt) -> OpaquePointer? { statements[place(of: key)] }

    /// - Parameter key: not 0, and not in the table.
    mutating func insert(_ statement: OpaquePointer, for key: UInt) {
        if count * 2 >= keys.count { grow() }
        let place = place(of: key)
        keys[place] = key
        statements[place] = statement
        count += 1
    }

    /// Where the key is, or would be. There is always a free place.
    private func place(of key: UInt) -> Int {
        let mask = keys.count - 1
        // Fibonacci hashing: the high bits of the product are the well mixed ones.
        var place = Int(truncatingIfNeeded: key &* 0x9E37_79B9_7F4A_7C15 &>> 32) & mask
        while keys[place] != key, keys[place] != 0 { place = (place + 1) & mask }
        return place
    }

    private mutating func grow() {
        let old = (keys, statements)
        keys = [UInt](repeating: 0, count: old.0.count * 2)
        statements = [OpaquePointer?](repeating: nil, count: old.0.count * 2)
        for (key, statement) in zip(old.0, old.1) where key != 0 {
            let place = place(of: key)
            keys[place] = key
            statements[place] = statement
        }
    }
}
