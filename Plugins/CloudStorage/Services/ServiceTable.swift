import CObjectStore
import CPluginABI

// The functions of the published table. Each begins with the guard of a stopped plugin, copies what it was shown, and hands over.

private func ending(_ done: cm_object_done?, _ context: UnsafeMutableRawPointer?) -> ObjectStoreService.Ending? {
    done.map { ObjectStoreService.Ending(done: $0, context: context) }
}

func servicePut(
    _: UnsafeMutableRawPointer?, _ remote: cm_text, _ key: cm_text, _ type: cm_text, _ content: cm_bytes, _ done: cm_object_done?,
    _ context: UnsafeMutableRawPointer?
) -> cm_status {
    guard let service = ObjectStoreService.current else { return CM_E_GONE }
    guard content.size <= ObjectStoreService.mostBytes else { return CM_E_TOO_LARGE }
    guard let remote = Borrowed.text(remote), let key = Borrowed.text(key), let type = Borrowed.text(type), let ending = ending(done, context) else {
        return CM_E_INVALID
    }
    return service.put(remote, key, type, Borrowed.bytes(content), ending)
}

func serviceGet(
    _: UnsafeMutableRawPointer?, _ remote: cm_text, _ key: cm_text, _ offset: UInt64, _ limit: UInt64, _ done: cm_object_done?,
    _ context: UnsafeMutableRawPointer?
) -> cm_status {
    guard let service = ObjectStoreService.current else { return CM_E_GONE }
    guard limit <= ObjectStoreService.mostBytes else { return CM_E_TOO_LARGE }
    guard let remote = Borrowed.text(remote), let key = Borrowed.text(key), let ending = ending(done, context), offset <= UInt64(Int64.max) / 2 else {
        return CM_E_INVALID
    }
    return service.get(remote, key, offset, limit, ending)
}

func serviceStat(
    _: UnsafeMutableRawPointer?, _ remote: cm_text, _ key: cm_text, _ done: cm_object_done?, _ context: UnsafeMutableRawPointer?
) -> cm_status {
    guard let service = ObjectStoreService.current else { return CM_E_GONE }
    guard let remote = Borrowed.text(remote), let key = Borrowed.text(key), let ending = ending(done, context) else { return CM_E_INVALID }
    return service.stat(remote, key, ending)
}

func serviceList(
    _: UnsafeMutableRawPointer?, _ remote: cm_text, _ prefix: cm_text, _ cursor: cm_text, _ limit: UInt32, _ done: cm_object_done?,
    _ context: UnsafeMutableRawPointer?
) -> cm_status {
    guard let service = ObjectStoreService.current else { return CM_E_GONE }
    guard let remote = Borrowed.text(remote), let prefix = Borrowed.text(prefix), let cursor = Borrowed.text(cursor),
        let ending = ending(done, context), (1...1_000).contains(limit)
    else { return CM_E_INVALID }
    return service.list(remote, prefix, cursor, limit, ending)
}

func serviceRemove(
    _: UnsafeMutableRawPointer?, _ remote: cm_text, _ key: cm_text, _ done: cm_object_done?, _ context: UnsafeMutableRawPointer?
) -> cm_status {
    guard let service = ObjectStoreService.current else { return CM_E_GONE }
    guard let remote = Borrowed.text(remote), let key = Borrowed.text(key), let ending = ending(done, context) else { return CM_E_INVALID }
    return service.remove(remote, key, ending)
}

func serviceWriterBegin(
    _: UnsafeMutableRawPointer?, _ remote: cm_text, _ key: cm_text, _ type: cm_text, _ writer: UnsafeMutablePointer<UInt64>,
    _ done: cm_object_done?, _ context: UnsafeMutableRawPointer?
) -> cm_status {
    guard let service = ObjectStoreService.current else { return CM_E_GONE }
    guard let remote = Borrowed.text(remote), let key = Borrowed.text(key), let type = Borrowed.text(type), let ending = ending(done, context) else {
        return CM_E_INVALID
    }
    return service.beginWriter(remote, key, type, ending, &writer.pointee)
}

func serviceWriterWrite(_: UnsafeMutableRawPointer?, _ writer: UInt64, _ piece: cm_bytes) -> cm_status {
    guard let service = ObjectStoreService.current else { return CM_E_GONE }
    guard piece.size <= 1 << 20 else { return CM_E_TOO_LARGE }
    return service.write(writer, Borrowed.bytes(piece))
}

func serviceWriterEnd(_: UnsafeMutableRawPointer?, _ writer: UInt64) -> cm_status {
    ObjectStoreService.current?.end(writer, nil) ?? CM_E_GONE
}

func serviceWriterAbort(_: UnsafeMutableRawPointer?, _ writer: UInt64) -> cm_status {
    ObjectStoreService.current?.end(writer, CloudError(.cancelled, "its writer gave it up")) ?? CM_E_GONE
}
