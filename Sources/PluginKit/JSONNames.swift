import JSON

/// Members whose names come from data, in the words of the literal ones: a plugin's texts are short, and its sources stay as they
/// are. (The core's own take literals only, which nobody looks through for escapes; names out of data are its `member` and `name`.)
extension JSONWriter {
    public mutating func key(_ name: String) { self.name(name) }

    public mutating func field(_ name: String, _ value: some JSONWritable) { member(name, value) }

    /// Leaves the member out when there is no value.
    public mutating func field(_ name: String, ifPresent value: (some JSONWritable)?) {
        if let value { member(name, value) }
    }

    public mutating func object<Failure>(
        _ name: String, _ members: (inout JSONWriter) throws(Failure) -> Void
    ) throws(Failure) {
        self.name(name)
        try object(members)
    }

    public mutating func array<Failure>(
        _ name: String, _ elements: (inout JSONWriter) throws(Failure) -> Void
    ) throws(Failure) {
        self.name(name)
        try array(elements)
    }
}
