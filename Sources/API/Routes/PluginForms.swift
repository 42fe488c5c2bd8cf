import JSON
import Kernel
import PluginHost

extension CoreForms {
    /// The forms of this API.
    public static let api = CoreForms(
        client: { clientJSON($0).serialized() },
        commandRequest: { (body) throws(Problem) in try CommandReading.request(body, idempotencyKey: nil) },
        target: { view in
            var none = 0
            var writer = JSONWriter(reserving: 512)
            CommandWriting.target(view, showsOutput: false, &none, &writer)
            return writer.finish()
        },
        command: { summary in
            var writer = JSONWriter(reserving: 512)
            writer.object { writer in CommandWriting.summary(summary, &writer) }
            return writer.finish()
        },
        newFile: { (body) throws(Problem) in
            guard let json = try? JSONValue(parsing: body) else { throw .invalid("what describes the file is not JSON") }
            try FileReading.schema.check(json)
            return FileReading.newFile(json)
        },
        file: { FileWriting.json($0).serialized() },
        transferRequest: { (body) throws(Problem) in
            guard let json = try? JSONValue(parsing: body) else { throw .invalid("what describes the transfer is not JSON") }
            try TransferReading.pluginSchema.check(json)
            var order = try TransferReading.request(json)
            order.idempotencyKey = json["idempotency_key"]?.string.map { IdempotencyKey(key: $0, request: body) }
            return order
        })
}
