import CPluginABI
import JSON

/// A call whose answer comes later as `done(status, json)`.
final class AnswerContext {
    let function: String
    let done: (Result<JSONValue, PluginError>) -> Void

    init(_ function: String, _ done: @escaping (Result<JSONValue, PluginError>) -> Void) {
        self.function = function
        self.done = done
    }
}

func answerCame(_ context: UnsafeMutableRawPointer?, _ status: cm_status, _ result: cm_text) {
    withContext(context, as: AnswerContext.self) { call in
        let value = (try? JSONValue(parsing: String(result))) ?? .null
        guard status == CM_OK else {
            var error = PluginError.failed(status, call.function)
            error.code = value["code"]?.string ?? error.code
            error.text = value["message"]?.string ?? error.text
            return call.done(.failure(error))
        }
        call.done(.success(value))
    }
}
