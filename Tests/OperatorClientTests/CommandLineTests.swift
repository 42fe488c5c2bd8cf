import JSON
import Testing

@testable import OperatorClient

@Suite struct CommandLineTests {
    private func silent() -> Bench { Bench { _ in ScriptedCore.json([:]) } }

    @Test func verbsAreWellFormed() {
        var names: Set<String> = []
        for verb in Verb.table {
            #expect(names.insert(verb.name).inserted, "\(verb.name) stands twice")
            #expect(verb.summary.hasSuffix("."), "\(verb.name): the summary is no sentence")
            var flags: Set<String> = []
            for flag in verb.allFlags + Help.globalFlags {
                #expect(flags.insert(flag.name).inserted, "\(verb.name): --\(flag.name) stands twice")
            }
            if case .call(_, let path, _) = verb.action {
                for segment in path.split(separator: "/") where segment.hasPrefix("{") {
                    #expect(verb.operands.contains { "{\($0.name)}" == segment }, "\(verb.name): \(segment) has no operand")
                }
            }
        }
        // An operand that is not the last must not be repeated, or words could not be told apart.
        for verb in Verb.table { #expect(verb.operands.dropLast().allSatisfy { !$0.isRepeated }) }
    }

    @Test func mistakesAreUsage() async {
        let cases: [([String], String)] = [
            ([], "no verb"), (["clint"], "'clint' is no verb"), (["clients"], "needs a verb"), (["clients", "shw"], "no verb 'shw'"),
            (["clients", "show"], "ID is missing"), (["clients", "show", "a", "b"], "one word too many"),
            (["clients", "list", "--outputs", "json"], "did you mean --output?"),
            (["clients", "list", "--output", "xml"], "table or json"), (["clients", "show", ".."], "is no ID"),
            (["exec", "a"], "nothing to run"), (["exec", "a", "--"], "nothing stands after"),
            (["exec", "a", "--shell", "x", "--", "y"], "more than one"),
            (["exec", "a", "--timeout", "soon", "--", "y"], "expected a time"),
            (["api", "TRACE", "/x"], "no method"), (["api", "GET", "x"], "no path"), (["completion", "tcsh"], "bash, zsh and fish"),
        ]
        for (arguments, wanted) in cases {
            let bench = silent()
            let cmctl = Cmctl(
                console: bench.console, environment: bench.environment, pause: { _ in }, connect: { _ in bench.core })
            #expect(await cmctl.run(arguments) == .usage, "\(arguments)")
            #expect(bench.console.errors.contains(wanted), "\(arguments) said \(bench.console.errors)")
            #expect(bench.core.requests.isEmpty)
        }
    }

    @Test func helpComesFromTheTable() async {
        let bench = silent()
        #expect(await bench.run("--help") == .success)
        for verb in Verb.table { #expect(bench.console.output.contains(verb.name)) }
        let verb = silent()
        #expect(await verb.run("exec", "--help") == .success)
        #expect(verb.console.output.contains("Usage: cmctl exec SELECTOR [flags] -- ARGV…"))
        #expect(verb.console.output.contains("--concurrency N"))
        let group = silent()
        #expect(await group.run("clients", "--help") == .success)
        #expect(group.console.output.contains("cmctl clients show ID"))
    }

    @Test func completions() async {
        let words = { (words: [String]) in Completions.candidates(words, Verb.table).map(\.word) }
        #expect(words(["cl"]) == ["cloud", "clients"])
        #expect(words(["clients", "s"]).contains("show"))
        #expect(words(["exec", "sel", "--conc"]) == ["--concurrency"])
        #expect(words(["exec", "sel", "--", "l"]).isEmpty)
        let bench = silent()
        #expect(await bench.run("complete", "--", "exe") == .success)
        #expect(bench.console.output == "exec\tRuns a command on clients and shows its output as it comes.\n")
        for shell in ["bash", "zsh", "fish"] {
            let bench = silent()
            #expect(await bench.run("completion", shell) == .success)
            #expect(bench.console.output.contains("cmctl complete --"))
        }
    }

    @Test func times() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("0", 0)] as [(String, Int64)] {
            #expect(Invocation.seconds(text) == seconds)
        }
        for text in ["", "s", "1x", "1h30", "-5", "99999999999999999d", "1.5h"] { #expect(Invocation.seconds(text) == nil) }
    }
}

@Suite struct ServerChoiceTests {
    private let pin = String(repeating: "ab", count: 32)
    private var home: [String: String] { ["HOME": "/home/u"] }
    private let path = "/home/u/.config/client-manager/cmctl.json"

    private func resolve(
        _ flags: [String: String] = [:], _ environment: [String: String], _ files: [String: String] = [:]
    ) -> ServerChoice? {
        try? ServerChoice.resolve(flags: { flags[$0] }, environment: environment) { files[$0].map { Array($0.utf8) } }
    }

    @Test func flagsThenVariablesThenFileThenDirectory() {
        let file = [path: #"{"server": "https://saved:1", "token": "saved", "pin": "\#(pin)"}"#]
        let variables = home.merging(["CM_SERVER": "https://variable:1/", "CM_TOKEN": "variable"]) { $1 }
        #expect(
            resolve(["server": "https://flag:1", "token": "flag"], variables, file)
                == ServerChoice(server: "https://flag:1", token: "flag"))
        #expect(resolve([:], variables, file) == ServerChoice(server: "https://variable:1", token: "variable"))
        #expect(resolve([:], home, file) == ServerChoice(server: "https://saved:1", token: "saved", pin: pin))
        #expect(resolve([:], home) == nil)
        let directory = [
            "/d/run/ready.json": #"{"event":"ready","url":"http://127.0.0.1:9","fingerprint":"\#(pin)"}"#,
            "/d/admin-token": "admin\n",
        ]
        #expect(
            resolve(["data-dir": "/d"], home, directory)
                == ServerChoice(server: "http://127.0.0.1:9", token: "admin", pin: pin))
        #expect(resolve(["data-dir": "/e"], home, directory) == nil)
    }

    /// A saved token must never reach another server.
    @Test func savedSecretsStayWithTheirServer() {
        let file = [path: #"{"server": "https://saved:1", "token": "saved", "pin": "\#(pin)"}"#]
        #expect(resolve(["server": "https://other:1"], home, file) == ServerChoice(server: "https://other:1"))
        #expect(resolve(["server": "https://saved:1/"], home, file)?.token == "saved")
    }

    @Test func nonsenseIsNamed() {
        for server in ["core:1", "ftp://x", "https://", "https://a/b", ""] {
            #expect(throws: OperatorError.self) {
                try ServerChoice.resolve(flags: { $0 == "server" ? server : nil }, environment: [:]) { _ in nil }
            }
        }
        #expect(resolve(["server": "https://a:1", "pin": "abc"], [:]) == nil)
        #expect(resolve([:], home, [path: "{"]) == nil)
    }
}
