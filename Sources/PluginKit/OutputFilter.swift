import CPluginABI

/// Where a piece of output stands that a filter is shown.
public struct OutputPiece: Sendable {
    /// Ids.
    public let command: String
    public let client: String
    public let stream: Commands.Stream
    /// Of the first byte in the stream, as the program wrote it. After a restart of the core a stream begins again at 0.
    public let offset: UInt64
    /// The stream has ended: nothing is held back any more. That a last piece comes is not promised.
    public let isLast: Bool
}

extension Commands {
    /// All output of commands that are accepted from now on passes the filter before it is kept, in `load` best. Needs the
    /// capabilities "output.filter" and "inline". One for each plugin.
    ///
    /// The closure runs on the core's loops, several at once, 5 ms at most. It sees the next bytes of one stream, first
    /// those that it held back the last time, and may overwrite them where they stand. It answers how many bytes at the end are
    /// to be shown again with what follows, because they may be the beginning of something: 0 to 4,096; `nil`: it could not do
    /// its work, and this and the rest of the stream are kept as asterisks.
    public func addFilter(
        _ filter: @escaping @Sendable (OutputPiece, inout MutableSpan<UInt8>) -> Int?
    ) throws(PluginError) -> Registration {
        guard let add = table.functions.filter_add else { throw .missing("cm.commands/1 filter_add") }
        var callbacks = cm_output_filter_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_output_filter_callbacks>.size), revision: 1)
        callbacks.filter = filterOutput
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(FilterContext(filter)).toOpaque()
        var handle = CM_NO_HANDLE
        try attempt("cm.commands/1 filter_add") { add(table.context, &callbacks, context, &handle, $0) }
        return Registration(handle: handle)
    }

    /// Commands are not bound to it any more; what bound ones still print is kept as asterisks.
    public func removeFilter(_ filter: Registration) { _ = table.functions.filter_remove?(table.context, filter.handle) }
}

private final class FilterContext: Sendable {
    let filter: @Sendable (OutputPiece, inout MutableSpan<UInt8>) -> Int?

    init(_ filter: @escaping @Sendable (OutputPiece, inout MutableSpan<UInt8>) -> Int?) { self.filter = filter }
}

private func filterOutput(
    _ context: UnsafeMutableRawPointer?, _ piece: UnsafePointer<cm_output_piece>, _ bytes: UnsafeMutablePointer<UInt8>?,
    _ size: UInt64
) -> Int64 {
    var answer: Int?
    withContext(context, as: FilterContext.self) { context in
        let shown = OutputPiece(
            command: String(piece.pointee.command), client: String(piece.pointee.client),
            stream: piece.pointee.stream == Commands.Stream.errors.rawValue ? .errors : .output,
            offset: piece.pointee.offset, isLast: piece.pointee.flags & CM_OUTPUT_LAST != 0)
        let window = UnsafeMutableBufferPointer(start: bytes, count: Int(size))
        var span = window.mutableSpan
        answer = context.filter(shown, &span)
    }
    return answer.map { Int64($0) } ?? Int64(CM_E_INTERNAL)
}
