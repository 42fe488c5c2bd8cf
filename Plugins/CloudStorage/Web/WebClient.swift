import CCloudLibrary
import Synchronization

/// How servers are reached.
struct WebOptions: Sendable, Equatable {
    var connectSeconds = 10
    /// An exchange in which no byte moves for so long is over.
    var stallSeconds = 60
    /// PEM; `nil`: the system's roots.
    var authorities: String?
    var proxy = ""
}

/// HTTP exchanges over libcurl, each on its caller's thread, over kept connections.
final class WebClient: Sendable {
    /// A handle of libcurl with its connections.
    ///
    /// Unchecked: whoever took it out of `idle` has it alone.
    private struct Handle: @unchecked Sendable {
        let curl: UnsafeMutableRawPointer
    }

    private let options: WebOptions
    private let idle = Mutex<[Handle]>([])
    private static let kept = 16

    init(_ options: WebOptions) { self.options = options }

    deinit { for handle in idle.withLock({ $0 }) { curl_easy_cleanup(handle.curl) } }

    /// Sends a request and waits for the whole answer. A status is not an error here; what keeps an answer from coming is.
    func perform(_ request: WebRequest, _ cancellation: Cancellation, sink: WebSink? = nil) throws(CloudError) -> WebResponse {
        guard let handle = idle.withLock({ $0.popLast() }) ?? curl_easy_init().map({ Handle(curl: $0) }) else {
            throw CloudError(.internal, "libcurl gave no handle")
        }
        let exchange = WebExchange(request, options, cancellation, sink)
        let list = try headers(request)
        defer { curl_slist_free_all(list) }
        prepare(handle.curl, request, exchange)
        cloud_set_headers(handle.curl, list)
        let code = withExtendedLifetime(exchange) { curl_easy_perform(handle.curl) }
        if code == CURLE_OK { exchange.finish() }
        curl_easy_reset(handle.curl)
        if code == CURLE_OK || code == CURLE_ABORTED_BY_CALLBACK || code == CURLE_WRITE_ERROR {
            let isKept = idle.withLock { idle in
                guard idle.count < Self.kept else { return false }
                idle.append(handle)
                return true
            }
            if !isKept { curl_easy_cleanup(handle.curl) }
        } else {
            curl_easy_cleanup(handle.curl)
        }
        if let fault = exchange.fault { throw fault }
        if cancellation.isCancelled, code != CURLE_OK { throw CloudError(.cancelled, "the work was called off") }
        guard code == CURLE_OK else { throw failure(code, request) }
        return exchange.response
    }

    private func headers(_ request: WebRequest) throws(CloudError) -> UnsafeMutablePointer<curl_slist>? {
        var list: UnsafeMutablePointer<curl_slist>?
        // Without it libcurl waits a second for servers that do not know "100 Continue".
        for line in request.headers.map({ $0.value.isEmpty ? "\($0.name);" : "\($0.name): \($0.value)" }) + ["Expect:"] {
            guard line.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
                curl_slist_free_all(list)
                throw .invalid("a header of a request must not have control characters")
            }
            list = curl_slist_append(list, line)
        }
        return list
    }

    private func prepare(_ curl: UnsafeMutableRawPointer, _ request: WebRequest, _ exchange: WebExchange) {
        cloud_set_text(curl, CURLOPT_URL, request.url)
        cloud_set_long(curl, CURLOPT_NOSIGNAL, 1)
        cloud_set_long(curl, CURLOPT_PATH_AS_IS, 1)
        cloud_set_long(curl, CURLOPT_FOLLOWLOCATION, 0)
        cloud_set_text(curl, CURLOPT_PROTOCOLS_STR, "http,https")
        cloud_set_long(curl, CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
        cloud_set_long(curl, CURLOPT_CONNECTTIMEOUT, options.connectSeconds)
        cloud_set_long(curl, CURLOPT_BUFFERSIZE, 256 << 10)
        cloud_set_long(curl, CURLOPT_UPLOAD_BUFFERSIZE, 256 << 10)
        cloud_set_long(curl, CURLOPT_TCP_KEEPALIVE, 1)
        cloud_set_text(curl, CURLOPT_USERAGENT, "client-manager-cloud-storage")
        // The environment decides nothing: an empty text is "no proxy".
        cloud_set_text(curl, CURLOPT_PROXY, options.proxy)
        if let authorities = options.authorities {
            Array(authorities.utf8).withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                cloud_set_blob(curl, CURLOPT_CAINFO_BLOB, base, bytes.count)
            }
            cloud_set_text(curl, CURLOPT_CAPATH, nil)
        }
        cloud_set_text(curl, CURLOPT_CUSTOMREQUEST, request.method)
        if request.method == "HEAD" {
            cloud_set_long(curl, CURLOPT_NOBODY, 1)
        } else if let body = request.body {
            cloud_set_long(curl, CURLOPT_UPLOAD, 1)
            cloud_set_size(curl, CURLOPT_INFILESIZE_LARGE, body.length ?? -1)
        }
        cloud_set_callbacks(
            curl, Unmanaged.passUnretained(exchange).toOpaque(), exchangeHead, exchangeBody, exchangeRead, exchangeSeek,
            exchangeProgress)
    }

    private func failure(_ code: CURLcode, _ request: WebRequest) -> CloudError {
        let place = request.url.prefix { $0 != "?" }.split(separator: "/").prefix(2).joined(separator: "//")
        let reason = String(cString: curl_easy_strerror(code))
        switch code {
        case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY, CURLE_COULDNT_CONNECT:
            return CloudError(.unreachable, "\(place) cannot be reached: \(reason)")
        case CURLE_OPERATION_TIMEDOUT: return CloudError(.timeout, "\(place) did not answer in time")
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CONNECT_ERROR, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER, CURLE_SSL_CACERT_BADFILE:
            return CloudError(.tls, "\(place) is not trusted: \(reason)")
        case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL: return .invalid("\(place) is no address of a store: \(reason)")
        default: return CloudError(.dropped, "the connection to \(place) ended: \(reason)")
        }
    }
}
