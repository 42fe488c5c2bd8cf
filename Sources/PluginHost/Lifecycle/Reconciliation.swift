import JSON
import Kernel
import Program
import System

/// From what stands in the directory to what runs. On the control thread.
extension PluginHost {
    /// One look: which plugins should run, which not, and why; then what it takes to get there.
    func reconcile() {
        let entries: [PluginDirectory.Entry]
        do throws(PluginRefusal) {
            entries = try confined.directory.scan()
        } catch {
            environment.log.error("plugins.directory-refused", ["reason": .string(error.description)])
            return
        }
        var wanted: [String: PluginFile] = [:]
        var seen: Set<String> = []
        for entry in entries { judge(entry, &wanted, &seen) }
        for (id, isOn) in options.flags where isOn && !seen.contains(id) {
            seen.insert(id)
            note(id, .missing, nil, PluginRefusal("plugin-missing", "its flag is on, but no file of it is in \(options.directory)", remedy: "put the file there, or unset the flag"))
        }
        dropUnserved(&wanted)

        for record in records.all {
            if let instance = record.instance, wanted[record.id] == nil { takeDown(instance) }
            if !seen.contains(record.id) { records.remove(record.id) }
        }
        bringUp(wanted)
    }

    private func note(_ id: String, _ state: PluginRecord.State, _ file: PluginFile?, _ refusal: PluginRefusal?) {
        var record = records[id] ?? PluginRecord(id: id, state: state)
        if let refusal, record.refusal != refusal || record.state != state {
            environment.log.warning(
                state.isRefusal ? "plugin.refused" : "plugin.off",
                ["plugin": .string(id), "state": .string(state.rawValue), "code": .string(refusal.code), "reason": .string(refusal.reason), "remedy": .string(refusal.remedy)])
        }
        record.state = state
        record.file = file ?? record.file
        record.refusal = refusal
        record.replacement = nil
        records.set(record)
    }

    /// One file: foreign, refused, off, waiting for approval, or wanted.
    private func judge(_ entry: PluginDirectory.Entry, _ wanted: inout [String: PluginFile], _ seen: inout Set<String>) {
        let name = entry.path.split(separator: "/").last.map(String.init) ?? entry.path
        switch entry.result {
        case .success(nil): return
        case .failure(let refusal):
            // Nobody knows its id: it is listed under its file's name. What ran from that file before goes on running only if
            // it stands there still; a damaged replacement must not end it.
            if let running = records.all.first(where: { $0.instance != nil && $0.file?.path == entry.path }), let file = running.file {
                seen.insert(running.id)
                wanted[running.id] = file
                environment.log.warning("plugin.replacement-refused", ["plugin": .string(running.id), "reason": .string(refusal.description)])
                records.change(running.id) { $0.refusal = refusal }
                return
            }
            seen.insert(name)
            note(name, .refused, nil, refusal)
        case .success(let file?):
            let id = file.note.id
            guard !seen.contains(id) else {
                seen.insert(name)
                return note(
                    name, .refused, nil,
                    PluginRefusal("plugin-duplicate", "\(name) has the id \(id), which another file of the directory has too", remedy: "remove one of the two"))
            }
            seen.insert(id)
            if let (state, refusal) = objection(to: file) {
                if !goesOn(id, beside: file, refusal, &wanted) { note(id, state, file, refusal) }
                return
            }
            wanted[id] = file
            if records[id]?.instance?.sha256 == file.sha256 { noteReplacement(id, nil, nil) }
        }
    }

    /// A new version that may not run, or could not, does not end the one that does; what speaks against that one too, does.
    private func goesOn(
        _ id: String, beside file: PluginFile, _ refusal: PluginRefusal, _ wanted: inout [String: PluginFile]
    ) -> Bool {
        guard let record = records[id], record.state == .running, let running = record.instance, let old = record.file,
            old.sha256 == running.sha256, old.sha256 != file.sha256, objection(to: old) == nil
        else { return false }
        wanted[id] = old
        if record.refusal != refusal {
            environment.log.warning(
                "plugin.replacement-refused",
                ["plugin": .string(id), "code": .string(refusal.code), "reason": .string(refusal.description)])
        }
        noteReplacement(id, file, refusal)
        return true
    }

    /// What stands in the directory and does not run, beside what does.
    private func noteReplacement(_ id: String, _ file: PluginFile?, _ refusal: PluginRefusal?) {
        records.change(id) { record in
            record.replacement = file
            record.refusal = refusal
        }
    }

    /// Why this file must not run now.
    private func objection(to file: PluginFile) -> (PluginRecord.State, PluginRefusal)? {
        let id = file.note.id
        if options.flags[id] == false {
            return (.off, PluginRefusal("plugin-flag-off", "its flag is 0", remedy: "unset the flag and restart the core"))
        }
        let decision = decisions[id]
        if decision.isOff {
            return (.off, PluginRefusal("plugin-off", decision.reason, remedy: "cmctl plugins enable \(id)"))
        }
        if decision.crashes >= options.crashLimit {
            return (.off, PluginRefusal("plugin-crashed", decision.reason, remedy: "replace it by a version that is right, then: cmctl plugins enable \(id)"))
        }
        if let failure = confined.failed[id], failure.sha256 == file.sha256 {
            return (failure.isFenced ? .fenced : .failed, failure.refusal)
        }
        if let taken = file.note.routes.first(where: { CoreAreas.routes.contains($0) }) {
            return (.refused, PluginRefusal("plugin-area-taken", "it claims the area /api/v1/\(taken), which belongs to the core", remedy: "choose another name in the note's \"routes\""))
        }
        let wanted = extra(file)
        if !wanted.isEmpty, !isInCatalogue(file), !decisions.isApproved(PluginDecisions.Approval(file, wanted)) {
            return (
                .awaitingApproval,
                PluginRefusal("plugin-awaiting-approval", "it asks for \(wanted.joined(separator: ", "))", remedy: "look at it, then: cmctl plugins approve \(id)"))
        }
        return configurationFault(file.note).map { (.refused, $0) }
    }

    /// What it asks for beyond the default, sorted, in the words of the list and of approvals.
    func extra(_ file: PluginFile) -> [String] {
        let capabilities = Set(file.note.capabilities.compactMap { Capability(rawValue: $0) }).subtracting(options.defaultGrants)
        return (capabilities.map(\.rawValue) + file.note.routes.filter(CoreAreas.firstParty.contains).map { "routes:" + $0 }).sorted()
    }

    /// A first-party file of this tree, byte for byte.
    private func isInCatalogue(_ file: PluginFile) -> Bool {
        guard let entry = options.catalogue[file.sha256], entry.id == file.note.id else { return false }
        return Set(file.note.capabilities.compactMap { Capability(rawValue: $0) }).isSubset(of: entry.capabilities.union(options.defaultGrants))
    }

    private func configurationFault(_ note: PluginNote) -> PluginRefusal? {
        let section = options.settings[note.id]
        guard let schema = note.configuration else {
            return section == nil ? nil : PluginRefusal(
                "plugin-configuration", "plugins.settings.\(note.id) is set, but the plugin has no configuration", remedy: "remove the section")
        }
        do throws(JSONSchema.Fault) {
            try JSONSchema(schema).check(section ?? [:])
            return nil
        } catch {
            return PluginRefusal(
                "plugin-configuration", "plugins.settings.\(note.id)\(error.pointer.isEmpty ? "" : " at " + error.pointer): \(error.text)",
                remedy: "correct the section of the core's configuration and restart it")
        }
    }

    /// Takes out whose required services nobody who may run provides; again, until nothing changes. Cycles are fine: all are
    /// loaded before any starts.
    private func dropUnserved(_ wanted: inout [String: PluginFile]) {
        while true {
            let provided = Set(wanted.values.flatMap(\.note.provides))
            let unserved = wanted.values.compactMap { file in
                file.note.requires.first { !provided.contains($0) }.map { (file, $0) }
            }
            if unserved.isEmpty { return }
            for (file, service) in unserved {
                wanted[file.note.id] = nil
                note(
                    file.note.id, .waiting, file,
                    PluginRefusal("plugin-service-missing", "it requires \(service), which no plugin that runs provides", remedy: "drop in a plugin that provides \(service); this one starts by itself then"))
            }
        }
    }

    // MARK: Up and down

    private func bringUp(_ wanted: [String: PluginFile]) {
        var fresh: [PluginInstance] = []
        var upgrades: [(old: PluginInstance, new: PluginInstance)] = []
        for file in wanted.values.sorted(by: { $0.note.id < $1.note.id }) {
            let record = records[file.note.id]
            if let running = record?.instance, running.sha256 == file.sha256 { continue }
            let old = record?.instance
            if old == nil { note(file.note.id, .loading, file, nil) }
            do throws(PluginRefusal) {
                let new = try load(file)
                if let old { upgrades.append((old, new)) } else { fresh.append(new) }
            } catch {
                fail(file, error, hasOld: old != nil)
            }
        }
        // All are loaded: services may be acquired, whatever the order of the files.
        for instance in fresh { environment.services.activate(instance.pending.services) }
        for instance in fresh { startFresh(instance) }
        for (old, new) in upgrades {
            upgrade(old, new)
            if records[new.id]?.instance === new {
                records.change(new.id) { record in
                    record.file = wanted[new.id]
                    record.replacement = nil
                }
            } else {
                records.change(old.id) { $0.replacement = wanted[new.id] }
            }
        }
    }

    private func fail(_ file: PluginFile, _ refusal: PluginRefusal, hasOld: Bool) {
        // A missing library or a full disk may pass: only what the file itself is to blame for is remembered.
        if !["plugin-library", "plugin-copy", "plugin-unreadable"].contains(refusal.code) {
            confined.failed[file.note.id] = (file.sha256, refusal, false)
        }
        guard hasOld else { return note(file.note.id, .failed, file, refusal) }
        environment.log.warning("plugin.upgrade-failed", ["plugin": .string(file.note.id), "version": .string(file.note.version.description), "reason": .string(refusal.description)])
        noteReplacement(file.note.id, file, refusal)
    }

    /// Copy, probe, image, `load`.
    private func load(_ known: PluginFile) throws(PluginRefusal) -> PluginInstance {
        guard let file = try PluginFile.read(known.path, trustedKeys: options.trustedKeys), file.sha256 == known.sha256 else {
            confined.lookAt = Deadline(milliseconds: 100).nanoseconds
            throw PluginRefusal("plugin-unreadable", "the file was replaced while it was looked at", remedy: "it is looked at again")
        }
        let images = confined.images[file.note.id, default: 0]
        guard images < options.imageLimit else {
            throw PluginRefusal(
                "plugin-too-many-images", "\(images) versions of it are loaded already, which stay in memory for good", remedy: "restart the core")
        }
        let copy = try PrivateCopy.make(file, inMemory: options.copiesInMemory, directory: options.copies)
        try Probe.run(copy, file, program: options.program, libraries: options.libraries)
        let image = try PluginImage.load(copy, file, libraries: options.libraries)
        confined.images[file.note.id] = images + 1
        confined.generation += 1
        let asked = Set(file.note.capabilities.compactMap { Capability(rawValue: $0) })
        let instance: PluginInstance
        do throws(SystemError) {
            instance = try PluginInstance(
                file, image, generation: confined.generation, grants: asked,
                configuration: options.settings[file.note.id] ?? [:], environment: environment)
        } catch {
            throw PluginRefusal("plugin-thread", "no thread could be started for it: \(error)", remedy: "raise the limit of threads")
        }
        environment.imageLoaded(instance)
        if let refusal = instance.load() {
            giveUp(instance, stuck: refusal.code == "plugin-stuck")
            throw refusal
        }
        return instance
    }

    private func giveUp(_ instance: PluginInstance, stuck: Bool) {
        if stuck {
            instance.end(as: .fenced)
        } else {
            // The same way back as after `stop`: what it registered is taken back, none of it was used yet.
            instance.end(as: .stopped)
        }
    }

    private func startFresh(_ instance: PluginInstance) {
        let missing = instance.note.requires.first { environment.services.service($0) == nil }
        let refusal = missing.map {
            PluginRefusal("plugin-service-missing", "it requires \($0), whose plugin did not load", remedy: "see why with: cmctl plugins list")
        } ?? instance.start() ?? publish(instance)
        guard let refusal else { return nowRuns(instance, "plugin.started") }
        environment.services.withdraw(instance)
        retire(instance, isFenced: refusal.code == "plugin-stuck")
        if missing == nil { confined.failed[instance.id] = (instance.sha256, refusal, refusal.code == "plugin-stuck") }
        note(instance.id, missing == nil ? .failed : .waiting, nil, refusal)
    }

    /// Switches routes and everything else that others see, in one step each.
    private func publish(_ instance: PluginInstance) -> PluginRefusal? {
        switchRegistrations(to: instance)
    }

    private func nowRuns(_ instance: PluginInstance, _ event: StaticString) {
        var record = records[instance.id] ?? PluginRecord(id: instance.id, state: .running)
        record.state = .running
        record.refusal = nil
        record.instance = instance
        record.images = confined.images[instance.id] ?? 0
        records.set(record)
        environment.log.info(event, ["plugin": .string(instance.id), "version": .string(instance.note.version.description), "sha256": .string(instance.sha256)])
        environment.kernel.events.publish(
            Event(kind: "\(event)", subject: instance.id, data: ["version": .string(instance.note.version.description)]))
    }

    /// The new version is loaded: quiesce the old → start the new → switch in one step → the old ends what it accepted.
    private func upgrade(_ old: PluginInstance, _ new: PluginInstance) {
        suspendRoutes(of: old.id, reason: "a new version takes over")
        var refusal = old.quiesce()
        if refusal == nil { refusal = new.start() }
        if refusal == nil { refusal = publish(new) }
        guard let refusal else {
            environment.services.activate(new.pending.services)
            resumeRoutes(of: old.id)
            retire(old)
            return nowRuns(new, "plugin.upgraded")
        }
        giveUp(new, stuck: new.thread.stuck(now: .max) != nil)
        confined.failed[new.id] = (new.sha256, refusal, false)
        environment.log.error("plugin.upgrade-failed", ["plugin": .string(new.id), "version": .string(new.note.version.description), "reason": .string(refusal.description)])
        if old.thread.stuck(now: .max) != nil { return fence(old, refusal) }
        _ = old.resume()
        offerKinds(old.pending.jobKinds, of: old.id)
        resumeRoutes(of: old.id)
        records.change(old.id) { $0.refusal = refusal }
    }

    /// Out of sight at once; what it accepted ends behind the scenes.
    func takeDown(_ instance: PluginInstance) {
        removeRoutes(of: instance.id)
        _ = instance.quiesce()
        retire(instance)
        records.change(instance.id) { record in
            if record.instance === instance { record.instance = nil }
            if record.state == .running { record.state = .stopping }
        }
    }
}

extension PluginRecord.State {
    fileprivate var isRefusal: Bool { self == .refused || self == .failed }
}
