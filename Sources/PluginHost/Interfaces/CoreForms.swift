import Kernel

/// How the API writes what plugins get to see of it, and reads what they send in the same form. The API's layer lies above
/// this one, so it hands its forms in.
public struct CoreForms: Sendable {
    /// A client as GET /api/v1/clients/{id} shows it.
    var client: @Sendable (ClientDetail) -> [UInt8]
    /// The body of POST /api/v1/commands.
    var commandRequest: @Sendable ([UInt8]) throws(Problem) -> CommandRequest
    /// A target of a command, without its output.
    var target: @Sendable (TargetView) -> [UInt8]
    /// What a command has come to, as GET /api/v1/commands/{id} shows it, without the request.
    var command: @Sendable (CommandSummary) -> [UInt8]

    /// The body of POST /api/v1/files.
    var newFile: @Sendable ([UInt8]) throws(Problem) -> NewFile
    /// A file as GET /api/v1/files/{id} shows it.
    var file: @Sendable (StoredFile) -> [UInt8]
    /// The body of POST /api/v1/transfers.
    var transferRequest: @Sendable ([UInt8]) throws(Problem) -> TransferRequest

    public init(
        client: @escaping @Sendable (ClientDetail) -> [UInt8],
        commandRequest: @escaping @Sendable ([UInt8]) throws(Problem) -> CommandRequest,
        target: @escaping @Sendable (TargetView) -> [UInt8], command: @escaping @Sendable (CommandSummary) -> [UInt8],
        newFile: @escaping @Sendable ([UInt8]) throws(Problem) -> NewFile, file: @escaping @Sendable (StoredFile) -> [UInt8],
        transferRequest: @escaping @Sendable ([UInt8]) throws(Problem) -> TransferRequest
    ) {
        self.client = client
        self.commandRequest = commandRequest
        self.target = target
        self.command = command
        self.newFile = newFile
        self.file = file
        self.transferRequest = transferRequest
    }
}
