import CPluginABI

// The output filter of cm.commands/1: a command prints, in pieces of every size.

func commandsFilterAdd(
    _ context: Context, _ callbacks: UnsafePointer<cm_output_filter_callbacks>, _ own: Opaque,
    _ filter: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.commands/1 filter_add"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_output_filter_callbacks>.size, function)
    func refuse(_ status: cm_status, _ text: String) -> cm_status {
        callbacks.pointee.destroy?(own)
        return fail(status, error, text)
    }
    if let status = host.enter(function, .own) { return refuse(status, "played refusal") }
    for needed in [CM_CAPABILITY_FILTER, CM_CAPABILITY_INLINE] where !host.note.capabilities.contains(needed) {
        host.misuse("\(function): the note does not ask for the capability \(needed)")
        return refuse(CM_E_DENIED, "not granted")
    }
    if callbacks.pointee.filter == nil {
        host.misuse("\(function): no callback filter")
        return refuse(CM_E_INVALID, "no callback filter")
    }
    if host.with({ state in state.registrations.values.contains { $0.kind == .filter } }) {
        host.misuse("\(function): a second filter")
        return refuse(CM_E_EXISTS, "the plugin has a filter already")
    }
    filter.pointee = host.register(
        .init(
            kind: .filter, name: "output filter", context: own, destroy: callbacks.pointee.destroy,
            callbacks: .filter(callbacks.pointee)))
    return CM_OK
}

func commandsFilterRemove(_ context: Context, _ filter: UInt64) -> cm_status {
    guard let host = core(context, "cm.commands/1 filter_remove") else { return CM_E_INVALID }
    if let status = host.enter("cm.commands/1 filter_remove", .any, canFail: false) { return status }
    return host.forget(filter, .filter, "cm.commands/1 filter_remove")
}

extension PlayedHost {
    /// Some lines, once in one piece and once byte by byte, as the core shows them: held bytes first, and an end.
    func playOutput(_ filter: Registration, _ callbacks: cm_output_filter_callbacks) {
        let text = Array("\u{1}\u{2} plain AKIAIOSFODNN7EXAMPLE \u{FF}\npassword=hunter2\n\n".utf8)
        at("filter of the output filter")
        onLoop(true) {
            for pieceBytes in [text.count, 1] {
                var window: [UInt8] = []
                var offset = 0
                for begin in stride(from: 0, through: text.count, by: pieceBytes) {
                    let isLast = begin == text.count
                    window += text[begin..<min(begin + pieceBytes, text.count)]
                    guard let held = play(&window, filter, callbacks, at: offset, isLast) else { return }
                    offset += window.count - held
                    window = Array(window.suffix(held))
                }
            }
        }
    }

    /// - Returns: how many bytes the filter holds back; `nil`: it said that it could not, or broke a rule.
    private func play(
        _ window: inout [UInt8], _ filter: Registration, _ callbacks: cm_output_filter_callbacks, at offset: Int, _ isLast: Bool
    ) -> Int? {
        let margin = [UInt8](repeating: 0xA7, count: 64)
        var room = margin + window + margin
        let count = window.count
        var answer: Int64 = -1
        room.withUnsafeMutableBufferPointer { room in
            "check".withPlayedText { id in
                var piece = cm_output_piece(
                    head: cm_head(size: UInt32(MemoryLayout<cm_output_piece>.size), revision: 1), command: id, client: id,
                    stream: 1, flags: isLast ? CM_OUTPUT_LAST : 0, offset: UInt64(offset))
                answer = callbacks.filter?(filter.context, &piece, room.baseAddress.map { $0 + 64 }, UInt64(count)) ?? -1
            }
        }
        guard room.prefix(64).elementsEqual(margin), room.suffix(64).elementsEqual(margin) else {
            misuse("the output filter wrote outside of the bytes that it was given")
            return nil
        }
        guard answer <= Int64(min(count, Int(CM_OUTPUT_HELD))) else {
            misuse("the output filter holds back \(answer) of \(count) bytes; CM_OUTPUT_HELD is \(CM_OUTPUT_HELD)")
            return nil
        }
        window = Array(room[64..<64 + count])
        return answer < 0 ? nil : isLast ? 0 : Int(answer)
    }
}
