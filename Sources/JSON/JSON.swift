/// A whole JSON value in memory.
public indirect enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)
}

/// Members in the order of the text.
public struct JSONObject: Sendable, Equatable {
    public init() {}
}
