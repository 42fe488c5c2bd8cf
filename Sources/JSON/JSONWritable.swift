/// What can stand as a value in `JSONWriter`.
public protocol JSONWritable {
    /// Writes exactly one value.
    func write(to writer: inout JSONWriter)
}

extension JSONValue: JSONWritable {
    public func write(to writer: inout JSONWriter) {
        switch self {
        case .null: writer.null()
        case .bool(let value): writer.bool(value)
        case .integer(let value): writer.integer(value)
        case .number(let value): writer.double(value)
        case .string(let value): writer.string(value)
        case .array(let elements): elements.write(to: &writer)
        case .object(let object): object.write(to: &writer)
        }
    }
}

extension JSONObject: JSONWritable {
    public func write(to writer: inout JSONWriter) {
        writer.object { writer in
            for member in self { writer.member(member.key, member.value) }
        }
    }
}

extension String: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.string(self) }
}
extension Bool: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.bool(self) }
}
extension Int: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.integer(Int64(self)) }
}
extension Int64: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.integer(self) }
}
extension Int32: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.integer(Int64(self)) }
}
extension UInt64: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.unsigned(self) }
}
extension UInt32: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.unsigned(UInt64(self)) }
}
extension UInt16: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.unsigned(UInt64(self)) }
}
extension UInt8: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.unsigned(UInt64(self)) }
}
extension Double: JSONWritable {
    @inlinable public func write(to writer: inout JSONWriter) { writer.double(self) }
}
extension Optional: JSONWritable where Wrapped: JSONWritable {
    @inlinable
    public func write(to writer: inout JSONWriter) {
        if let self { self.write(to: &writer) } else { writer.null() }
    }
}
extension Array: JSONWritable where Element: JSONWritable {
    @inlinable
    public func write(to writer: inout JSONWriter) {
        writer.array { writer in
            for element in self { element.write(to: &writer) }
        }
    }
}
