import JSON

/// What is said beside the bytes, as text messages. Binary messages are output one way and keystrokes the other.
enum Notice {
    /// Output goes on at this offset; what comes next in binary messages counts from there.
    static func attached(_ session: Session.Shape, offset: UInt64, mode: Viewer.Mode) -> [UInt8] {
        write {
            $0.field("type", "attached")
            $0.field("session", session.id)
            $0.field("client", session.client)
            $0.field("offset", offset)
            $0.field("mode", mode.rawValue)
            $0.field("rows", UInt64(session.rows))
            $0.field("columns", UInt64(session.columns))
        }
    }

    /// Output from `from` to `to` is not kept any more, or the viewer was too slow for it.
    static func gap(from: UInt64, to: UInt64) -> [UInt8] {
        write {
            $0.field("type", "gap")
            $0.field("from", from)
            $0.field("to", to)
        }
    }

    static func resized(rows: Int, columns: Int) -> [UInt8] {
        write {
            $0.field("type", "resize")
            $0.field("rows", UInt64(rows))
            $0.field("columns", UInt64(columns))
        }
    }

    /// The client's link is down or up again.
    static func linked(_ isUp: Bool) -> [UInt8] {
        write {
            $0.field("type", "link")
            $0.field("up", isUp)
        }
    }

    /// The program has ended: `outcome`, `exit_code`, … as the core has them.
    static func ended(_ result: JSONValue) -> [UInt8] {
        write {
            $0.field("type", "exit")
            $0.field("result", result)
        }
    }

    private static func write(_ body: (inout JSONWriter) -> Void) -> [UInt8] {
        var writer = JSONWriter()
        writer.object { body(&$0) }
        return writer.finish()
    }
}

/// What a viewer says as text.
enum Control {
    case resize(rows: Int, columns: Int)

    init?(_ text: RawSpan) {
        guard text.byteCount <= 1_024, let json = try? JSONValue(parsing: [UInt8](text), limits: JSONLimits(depth: 4, bytes: 1_024)),
            json["type"]?.string == "resize", let rows = json["rows"]?.integer, let columns = json["columns"]?.integer,
            (1...1_000).contains(rows), (1...1_000).contains(columns)
        else { return nil }
        self = .resize(rows: Int(rows), columns: Int(columns))
    }
}
