import CCloudLibrary
import CPluginABI
import JSON
import PluginKit

/// Objects in stores of others: S3 and what speaks it, and WebDAV. See Docs/plugins/cloud-storage.md.
final class CloudStoragePlugin: Plugin {
    private let cloud: Cloud
    private let content: ContentRoutes
    private let jobUploads: JobUploads

    init(loading host: Host) throws(PluginError) {
        guard curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK else { throw PluginError(.internal, "libcurl cannot be used") }
        cloud = try Cloud(host, Settings(try host.configuration().section()))
        let remotes = Remotes(cloud)
        let dispatch = Dispatch(cloud)
        try ObjectStoreService(cloud, remotes).publish(try host.services())
        try RemoteRoutes(cloud: cloud, remotes: remotes, dispatch: dispatch).add()
        try ObjectRoutes(cloud: cloud, remotes: remotes, dispatch: dispatch).add()
        content = ContentRoutes(cloud: cloud, remotes: remotes, uploads: Uploads(cloud), dispatch: dispatch)
        try content.add()
        jobUploads = JobUploads(cloud, remotes)
        try JobRoutes(cloud: cloud, remotes: remotes, dispatch: dispatch, grants: try Grants(cloud)).add()
    }

    func start() throws(PluginError) {
        let (cloud, content, jobUploads) = (cloud, content, jobUploads)
        try cloud.executor.timer(after: 5_000, every: 30_000) {
            _ = cloud.calls.submit {
                jobUploads.sweep()
                FileLedger.sweep(cloud)
            }
        }
        try cloud.executor.timer(after: 300_000, every: 3_600_000) {
            _ = cloud.calls.submit {
                content.sweep()
                Report.sweep(cloud)
            }
        }
    }

    func stop() { cloud.stop() }
}

/// `pluginID` and `pluginVersion` come from the note.
private let entry = PluginEntry(CloudStoragePlugin.self, id: pluginID, version: pluginVersion)

@c @implementation
public func cm_plugin_entry(_ hostMajor: UInt32, _ hostMinor: UInt32) -> UnsafePointer<cm_plugin>? {
    entry.table(hostMajor)
}
