import JSON
import PluginHost

/// `plugin-manifest.json`, the catalogue of first-party plugins, for the scripts that build and stage them:
///
///     client-manager plugin manifest FILE             ID, FOLDER and FILE of each, one a line
///     client-manager plugin manifest FILE note ID     the identity note that is built into the plugin
///     client-manager plugin manifest FILE catalogue [ID=SHA256]…   share/plugin-catalogue.json
public enum PluginManifest {
    public static let usage = "client-manager plugin manifest FILE [note ID | catalogue ID=SHA256 …]"

    private struct Entry {
        let folder: String
        let file: String
        let flag: String
        let json: JSONObject
        let note: PluginNote
    }

    /// Members of an entry that the note does not have.
    private static let own: Set<String> = ["folder", "file", "flag", "abi"]

    public static func main(_ arguments: [String]) -> Int32 {
        guard let path = arguments.first else { return fail("FILE is missing\nusage: \(usage)", 2) }
        do throws(PluginRefusal) {
            let entries = try read(path)
            switch arguments.dropFirst().first {
            case nil:
                for entry in entries { print("\(entry.note.id) \(entry.folder) \(entry.file)") }
            case "note":
                guard arguments.count == 3, let entry = entries.first(where: { $0.note.id == arguments[2] }) else {
                    return fail("no plugin \(arguments.dropFirst(2).first ?? "") in \(path)", 1)
                }
                print(JSONValue.object(noteJSON(entry)).pretty())
            case "catalogue":
                print(JSONValue.object(["plugins": .array(try catalogue(entries, arguments.dropFirst(2)))]).pretty())
            case let word?: return fail("unexpected word \"\(word)\"\nusage: \(usage)", 2)
            }
            return 0
        } catch {
            return fail(error.description, 1)
        }
    }

    private static func read(_ path: String) throws(PluginRefusal) -> [Entry] {
        let json: JSONValue
        let bytes = try readFile(path)
        do throws(JSONError) { json = try JSONValue(parsing: bytes) } catch {
            throw wrong("\(path) is not JSON: \(error)")
        }
        guard let items = json["plugins"]?.array else { throw wrong("\(path) has no array \"plugins\"") }
        var entries: [Entry] = []
        for item in items {
            guard let object = item.object, let folder = item["folder"]?.string, let file = item["file"]?.string,
                let flag = item["flag"]?.string, file.hasSuffix(".so"), flag.hasPrefix("ENABLE_"),
                item["abi"]?.array?.compactMap(\.integer).count == 2
            else { throw wrong("each plugin of \(path) needs folder, file (NAME.so), flag (ENABLE_…) and abi ([first, last])") }
            let entry = Entry(
                folder: folder, file: file, flag: flag, json: object,
                note: try PluginNote(json: .object(JSONObject(object.filter { !own.contains($0.key) }.map { ($0.key, $0.value) }))))
            guard !entries.contains(where: { $0.note.id == entry.note.id || $0.file == file }) else {
                throw wrong("\(path) has \(entry.note.id) or \(file) twice")
            }
            entries.append(entry)
        }
        return entries
    }

    /// Id and version first, as the build fragment reads them.
    private static func noteJSON(_ entry: Entry) -> JSONObject {
        var note: JSONObject = ["id": .string(entry.note.id), "version": .string(entry.note.version.description)]
        for member in entry.json where !own.contains(member.key) { note[member.key] = member.value }
        return note
    }

    private static func catalogue(
        _ entries: [Entry], _ hashes: ArraySlice<String>
    ) throws(PluginRefusal) -> [JSONValue] {
        var items: [JSONValue] = []
        for word in hashes {
            let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2, parts[1].utf8.count == 64, let entry = entries.first(where: { $0.note.id == parts[0] }) else {
                throw wrong("\"\(word)\" is not ID=SHA256 of a plugin in the manifest")
            }
            items.append([
                "id": .string(entry.note.id), "file": .string(entry.file), "version": .string(entry.note.version.description),
                "sha256": .string(parts[1]), "capabilities": .array(entry.note.capabilities.map { .string($0) }),
                "flag": .string(entry.flag),
            ])
        }
        return items
    }

    private static func wrong(_ reason: String) -> PluginRefusal {
        PluginRefusal("plugin-manifest", reason, remedy: "correct plugin-manifest.json")
    }
}
