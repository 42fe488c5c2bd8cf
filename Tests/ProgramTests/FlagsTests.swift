import Program
import Testing

@Suite struct FlagsTests {
    let allowed: [Flag] = [
        .option("server", "URL", "Where the core listens.", letter: "s"), .toggle("json", "JSON.", letter: "j"),
        .option("label", "K=V", "A label.", repeated: true),
    ]

    private func problem(_ arguments: [String]) -> String? {
        do throws(FlagError) {
            _ = try Flags(parsing: arguments, allowed: allowed)
            return nil
        } catch {
            return error.detail
        }
    }

    @Test func everyForm() throws {
        let flags = try Flags(
            parsing: ["run", "--server", "a", "--json", "--label=x=1", "--label", "y", "web", "--", "ls", "--json", "--"],
            allowed: allowed)
        #expect(flags.value("server") == "a")
        #expect(flags.has("json"))
        #expect(flags.values("label") == ["x=1", "y"])
        #expect(flags.words == ["run", "web"])
        #expect(flags.rest == ["ls", "--json", "--"])
        let short = try Flags(parsing: ["-s", "a", "-j", "-"], allowed: allowed)
        #expect(short.value("server") == "a" && short.has("json") && short.words == ["-"] && short.rest == nil)
        #expect(try Flags(parsing: ["-sb"], allowed: allowed).value("server") == "b")
        #expect(try Flags(parsing: ["--server="], allowed: allowed).value("server") == "")
    }

    @Test func stopsAtTheVerb() throws {
        let flags = try Flags(parsing: ["-j", "exec", "--window", "3"], allowed: allowed, stopsAtFirstWord: true)
        #expect(flags.has("json") && flags.words == ["exec", "--window", "3"])
    }

    @Test func mistakesAreNamed() {
        #expect(problem(["--sever", "x"]) == "unknown flag --sever; did you mean --server?")
        #expect(problem(["--zzzzzz"]) == "unknown flag --zzzzzz")
        #expect(problem(["--server"]) == "--server needs a value: --server URL")
        #expect(problem(["--server", "--", "x"]) == "--server needs a value: --server URL")
        #expect(problem(["--json=yes"]) == "--json takes no value, found --json=yes")
        #expect(problem(["--server", "a", "--server", "b"]) == "--server is given twice")
        #expect(problem(["-x"]) == "unknown flag -x")
    }

    @Test func numbers() throws {
        let flags = try Flags(parsing: ["--server", "12", "--label", "x"], allowed: allowed)
        #expect(try flags.integer("server", in: 1...20) == 12)
        #expect(try flags.integer("absent", in: 1...20) == nil)
        #expect(throws: FlagError("--server 12: expected a whole number from 1 to 5")) {
            try flags.integer("server", in: 1...5)
        }
        #expect(throws: FlagError.self) { try flags.integer("label", in: 1...5) }
    }
}
