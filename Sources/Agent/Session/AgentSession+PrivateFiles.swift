import AgentProtocol
import Reactor

/// Private files on a session's link: a request of the core, one answer.
extension AgentSession {
    func receivePrivateFile(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard features.contains(Feature.privateFile), let privateFiles else {
            throw WireError(.unexpected, "private files are not among the features of this link")
        }
        let request = try PrivateFileRequest(action: header.flags, reading: payload)
        let (number, epoch) = (header.offset, epoch)
        privateFiles.handle(request) { [weak self] answer in
            // An answer to a core that is away is for nobody: the next one lists what is there.
            guard let self, phase == .online, self.epoch == epoch else { return }
            write { answer.writeFrame(number: number, to: &$0) }
        }
    }
}
