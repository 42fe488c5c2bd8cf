import PluginCheck

/// `client-manager plugin …`: tools for people who write plugins. No core runs.
enum CorePluginTools {
    static func run(_ arguments: [String]) -> Int32 {
        let rest = Array(arguments.dropFirst())
        switch arguments.first {
        case "new": return PluginTemplate.main(rest)
        case "check": return PluginCheck.main(rest)
        // The child of `check`; not for people.
        case "check-part": return PluginCheck.part(rest)
        case "list": return PluginList.main(rest)
        case "manifest": return PluginManifest.main(rest)
        default:
            return CoreCommandLine.fail(
                "usage:\n  \(PluginTemplate.usage)\n  \(PluginCheck.usage)\n  \(PluginList.usage)\n  \(PluginManifest.usage)", status: 2)
        }
    }
}
