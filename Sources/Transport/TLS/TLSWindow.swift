import COpenSSL

/// What OpenSSL reads from and writes to during one call: the bytes of one receive and the loop's outgoing buffer.
///
/// One BIO per loop serves all its TLS connections: whoever calls into OpenSSL puts the connection's ciphertext here
/// first and takes the output away afterwards, so a connection has no BIO state of its own. Raw memory; confined to
/// the loop; `input` is only set during a call whose bytes it points to.
final class TLSWindow {
    /// More than one step's output: `encryptStep` of plaintext plus what a handshake adds.
    static let outputCapacity = 256 << 10
    static let encryptStep = 128 << 10

    struct State {
        var input: UnsafeRawPointer?
        var inputCount = 0
        var output: UnsafeMutableRawPointer
        var outputCount = 0
    }
    private let state: UnsafeMutablePointer<State>
    private let method: OpaquePointer
    /// Each TLS session holds a reference of its own.
    let bio: OpaquePointer

    init?() {
        guard let method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "loop") else { return nil }
        BIO_meth_set_read_ex(method, readFromWindow)
        BIO_meth_set_write_ex(method, writeToWindow)
        BIO_meth_set_ctrl(method, controlWindow)
        guard let bio = BIO_new(method) else {
            BIO_meth_free(method)
            return nil
        }
        self.method = method
        self.bio = bio
        state = .allocate(capacity: 1)
        state.initialize(
            to: State(output: UnsafeMutableRawPointer.allocate(byteCount: Self.outputCapacity, alignment: 64)))
        BIO_set_data(bio, state)
        BIO_set_init(bio, 1)
    }

    deinit {
        BIO_free(bio)
        BIO_meth_free(method)
        state.pointee.output.deallocate()
        state.deallocate()
    }

    /// Runs `body`, a call into OpenSSL, with these bytes as what the peer sent.
    func withInput<Result>(_ bytes: UnsafeRawBufferPointer, _ body: () -> Result) -> Result {
        state.pointee.input = bytes.baseAddress
        state.pointee.inputCount = bytes.count
        defer {
            state.pointee.input = nil
            state.pointee.inputCount = 0
        }
        return body()
    }

    /// Bytes of the peer that OpenSSL has not read yet.
    var hasInput: Bool { state.pointee.inputCount > 0 }

    /// What OpenSSL wants sent; valid until the next call into it.
    func takeOutput() -> UnsafeRawBufferPointer {
        let bytes = UnsafeRawBufferPointer(start: state.pointee.output, count: state.pointee.outputCount)
        state.pointee.outputCount = 0
        return bytes
    }
}

private func window(_ bio: OpaquePointer?) -> UnsafeMutablePointer<TLSWindow.State>? {
    BIO_get_data(bio)?.assumingMemoryBound(to: TLSWindow.State.self)
}

private let readFromWindow: @convention(c) (OpaquePointer?, UnsafeMutablePointer<CChar>?, Int, UnsafeMutablePointer<Int>?) -> Int32 = {
    bio, target, capacity, count in
    guard let window = window(bio), let source = window.pointee.input, let target, let count,
        window.pointee.inputCount > 0
    else {
        cm_bio_retry_read(bio)
        return 0
    }
    let taken = min(capacity, window.pointee.inputCount)
    UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: taken)
    window.pointee.input = source + taken
    window.pointee.inputCount -= taken
    count.pointee = taken
    cm_bio_no_retry(bio)
    return 1
}

private let writeToWindow: @convention(c) (OpaquePointer?, UnsafePointer<CChar>?, Int, UnsafeMutablePointer<Int>?) -> Int32 = {
    bio, source, size, count in
    guard let window = window(bio), let source, let count,
        window.pointee.outputCount + size <= TLSWindow.outputCapacity
    else {
        cm_bio_retry_write(bio)
        return 0
    }
    (window.pointee.output + window.pointee.outputCount).copyMemory(from: source, byteCount: size)
    window.pointee.outputCount += size
    count.pointee = size
    cm_bio_no_retry(bio)
    return 1
}

private let controlWindow: @convention(c) (OpaquePointer?, Int32, Int, UnsafeMutableRawPointer?) -> Int = {
    _, command, _, _ in
    command == BIO_CTRL_FLUSH ? 1 : 0
}
