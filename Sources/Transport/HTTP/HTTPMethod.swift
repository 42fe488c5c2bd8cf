/// The request methods that this server knows. Any other token is answered with 501.
public enum HTTPMethod: String, Sendable, CaseIterable {
    case get = "GET"
    case head = "HEAD"
    case post = "POST"
    case put = "PUT"
    case patch = "PATCH"
    case delete = "DELETE"
    case options = "OPTIONS"
    case connect = "CONNECT"
    case trace = "TRACE"

    init?(bytes: Span<UInt8>) {
        for method in HTTPMethod.allCases where bytes.matches(method.rawValue) {
            self = method
            return
        }
        return nil
    }
}
