/// Where everything of an agent lies on a host: what `cm-agent install` uses, and what the installer puts beside it for as
/// long as it works.
enum Places {
    static let program = "/usr/local/bin/cm-agent"
    static let directory = "/var/lib/client-manager-agent"
    static let unit = "/etc/systemd/system/cm-agent.service"

    /// The program on its way in, and the one that it takes the place of.
    static let newProgram = program + ".new"
    static let replacedProgram = program + ".replaced"
    static let replacedUnit = unit + ".replaced"
    /// Says which action is under way: what an interrupted one has left is known by it.
    static let marker = program + ".installing"

    static let token = directory + "/enroll-token"
    static let state = directory + "/identity/state.json"
    static let key = directory + "/identity/key.pem"
    /// Where no systemd runs: how the agent is started, and what it says. Not below `directory`, which may belong to the
    /// agent's user, while these are root's.
    static let start = program + ".start"
    static let log = "/var/log/cm-agent.log"

    /// What an agent that replaces its own program keeps beside it, and the key whose releases it takes.
    static let stagedProgram = program + ".staged"
    static let previousProgram = program + ".previous"
    static let releaseKey = "/etc/client-manager-agent/release-key.pem"
    /// The same on its way in.
    static let newReleaseKey = program + ".release-key"

    /// All of it.
    static let all = [
        program, newProgram, replacedProgram, stagedProgram, previousProgram, unit, replacedUnit, marker, start, log, releaseKey, newReleaseKey,
        directory,
    ]
}
