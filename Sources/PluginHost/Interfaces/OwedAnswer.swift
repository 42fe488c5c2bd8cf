import CPluginABI
import JSON
import Kernel

/// One call of a plugin that is answered later, by a callback `done(context, status, result)` and then `destroy(context)`.
final class OwedAnswer: Sendable {
    typealias Done = @convention(c) (UnsafeMutableRawPointer?, cm_status, cm_text) -> Void

    private let name: StaticString
    private let done: Done?
    private let context: CallbackContext
    private let instance: PluginInstance

    init(_ name: StaticString, _ done: Done?, _ context: CallbackContext, _ instance: PluginInstance) {
        self.name = name
        self.done = done
        self.context = context
        self.instance = instance
    }

    /// Calls `done`, then `destroy`. The number of calls is bounded, so none of them may be left out for a full queue.
    func end(_ result: Result<[UInt8], Problem>) {
        instance.callAlways(name) { [self] in
            guard let done else { return }
            switch result {
            case .success(let text): withText(text) { done(context.foreign.pointer, CM_OK, $0) }
            case .failure(let problem):
                var writer = JSONWriter()
                writer.object {
                    $0.field("code", problem.code)
                    $0.field("message", problem.detail)
                }
                withText(writer.finish()) { done(context.foreign.pointer, problem.pluginStatus, $0) }
            }
        }
        context.end(on: instance)
    }
}
