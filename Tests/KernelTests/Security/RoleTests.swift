import AgentProtocol
import JSON
import Testing

@testable import Kernel

private struct View: SelectorView {
    var labels: [String: String] = [:]
    var id: ClientID { ClientID(high: 1, low: 2) }
    var state: ClientState { .online }
    var name: String { "" }
    func label(_ key: String) -> String? { labels[key] }
    func facts(_ path: String) -> [String] { [] }
    func isMember(ofGroup name: String) -> Bool { false }
}

private func principal(_ roles: String..., scopes: [Right]? = nil) -> Principal {
    Principal(kind: .user, id: "ada", roles: roles, scopes: scopes)
}

@Suite struct RoleTests {
    private func table(_ rules: [RoleRule], other: [RoleRule] = []) -> RoleTable {
        RoleTable([Role(name: "r", summary: "", rules: rules), Role(name: "other", summary: "", rules: other)])
    }

    @Test func whatNoRuleAllowsIsDenied() throws {
        let table = table([])
        #expect(!table.grants(principal("r"), "client.read"))
        #expect(!table.grants(principal("unknown"), "client.read"))
        #expect(!table.grants(principal(), "client.read"))
        #expect(table.scope(principal("r"), "client.read").isNothing)
    }

    @Test func denyWinsWhateverTheOrderAndTheRole() throws {
        let production = try Selector(parsing: "env=prod")
        let allow = RoleRule(.allow, [try RightPattern("command.*")])
        let deny = RoleRule(.deny, [try RightPattern("command.run")], on: production)
        for table in [table([allow, deny]), table([deny, allow]), table([allow], other: [deny])] {
            let who = principal("r", "other")
            #expect(table.allows(who, "command.run", on: View(labels: ["env": "test"])))
            #expect(!table.allows(who, "command.run", on: View(labels: ["env": "prod"])))
            #expect(table.allows(who, "command.read", on: View(labels: ["env": "prod"])))
            let scope = table.scope(who, "command.run")
            #expect(scope.allows(View(labels: ["env": "test"])) && !scope.allows(View(labels: ["env": "prod"])))
            #expect(table.grants(who, "command.run"))
        }
        let never = table([allow], other: [RoleRule(.deny, [try RightPattern("*")])])
        #expect(!never.grants(principal("r", "other"), "command.run"))
        #expect(never.scope(principal("r", "other"), "command.run").isNothing)
    }

    /// "Everything, on the test machines" must not include user accounts.
    @Test func aRuleForSomeClientsGivesNoRightOverTheCore() throws {
        let table = table([RoleRule(.allow, [try RightPattern("*")], on: try Selector(parsing: "env=test"))])
        #expect(table.grants(principal("r"), "command.run"))
        #expect(!table.grants(principal("r"), "user.write"))
        #expect(!table.grants(principal("r"), "audit.read"))
    }

    @Test func scopesNarrowButNeverWiden() throws {
        let table = table([RoleRule(.allow, [try RightPattern("client.*")])])
        #expect(table.grants(principal("r", scopes: ["client.read"]), "client.read"))
        #expect(!table.grants(principal("r", scopes: ["client.read"]), "client.edit"))
        #expect(!table.grants(principal("r", scopes: ["*"]), "command.run"))
        #expect(!table.grants(principal("r", scopes: []), "client.read"))
    }

    @Test(arguments: ["", "client", "client.", ".read", "*.read", "client.*.x", "Client.read", "client read", "**"])
    func otherFormsOfActionsAreRefused(_ text: String) {
        #expect(throws: Problem.self) { try RightPattern(text) }
    }

    /// The short way for roles that allow everything is not open to any that narrows it.
    @Test func everythingIsOnlyWhatNothingNarrows() throws {
        let all = RoleRule(.allow, [try RightPattern("*")])
        let some = RoleRule(.allow, [try RightPattern("*")], on: try Selector(parsing: "env=test"))
        let deny = RoleRule(.deny, [try RightPattern("command.run")], on: try Selector(parsing: "env=prod"))
        #expect(table([all]).scope(principal("r"), "command.run").isEverything)
        #expect(table([some, all]).scope(principal("r"), "command.run").isEverything)
        for (table, who) in [
            (table([all, deny]), principal("r")), (table([some]), principal("r")),
            (table([all], other: [deny]), principal("r", "other")), (table([all], other: [deny]), principal("other", "r")),
        ] {
            let scope = table.scope(who, "command.run")
            #expect(!scope.isEverything && !scope.allows(View(labels: ["env": "prod"])) && scope.allows(View(labels: ["env": "test"])))
        }
        let narrow = principal("r", scopes: ["client.read"])
        #expect(table([all]).scope(narrow, "command.run").isNothing && !table([all]).grants(narrow, "command.run"))
        #expect(table([all]).grants(narrow, "client.read"))
    }

    @Test func builtInRolesCannotBeShadowed() throws {
        let table = RoleTable([Role(name: "viewer", summary: "", rules: [RoleRule(.allow, [try RightPattern("*")])])])
        #expect(!table.grants(principal("viewer"), "user.write"))
        #expect(table.grants(principal("administrator"), "anything.at.all"))
        #expect(!table.grants(principal("operator"), "command.shell"))
        #expect(!table.grants(principal("viewer"), "output.read"))
    }
}

@Suite struct CommandPolicyTests {
    private func rule(_ effect: RoleRule.Effect, _ match: PolicyRule.Match, roles: [String] = [], on selector: String = "*") throws -> PolicyRule {
        PolicyRule(id: "t", effect, match, roles: roles, on: try Selector(parsing: selector))
    }
    private func allows(_ rules: [PolicyRule], _ argv: [String], _ roles: String...) -> Bool {
        !CommandPolicy(rules).scope(Principal(kind: .user, id: "ada", roles: roles), .argv(argv)).isNothing
    }

    @Test func shippedAdministratorsRunAnythingOperatorsWhatIsHarmless() {
        let rules = CommandPolicy.initial
        #expect(allows(rules, ["anything", "at", "all"], "administrator"))
        #expect(allows(rules, ["uptime"], "operator"))
        #expect(allows(rules, ["/usr/bin/df", "-h"], "operator"))
        #expect(!allows(rules, ["rm", "-rf", "/"], "operator"))
        #expect(!allows(rules, ["uptime"], "viewer"))
        let shell = CommandPolicy(rules)
        #expect(!shell.scope(Principal(kind: .user, id: "a", roles: ["administrator"]), .shell).isNothing)
        #expect(shell.scope(Principal(kind: .user, id: "a", roles: ["operator"]), .shell).isNothing)
    }

    /// What passed the replaced system's validator.
    @Test(
        arguments: [
            ["find", "/", "-delete"], ["find", "/", "-exec", "rm", "-rf", "{}", "+"], ["awk", "BEGIN{system(\"id\")}"],
            ["tar", "--checkpoint-action=exec=sh"], ["sed", "1e"], ["/tmp/ls"], ["./ls"], ["../bin/ls"], ["/usr/bin/../../tmp/ls"],
            ["env", "sh"], ["xargs", "rm"], ["nothing-known"], [""], [],
        ])
    func presetsDoNotTakeANameForItsWord(_ argv: [String]) throws {
        #expect(!allows([try rule(.allow, .preset(.moderate))], argv))
    }

    @Test func argvRulesAreStrictWhereTheyAllowAndBroadWhereTheyDeny() throws {
        let status = try rule(.allow, .argv(try ArgvPattern(["systemctl", "status", "*"])))
        #expect(allows([status], ["systemctl", "status", "nginx"]))
        #expect(allows([status], ["/usr/bin/systemctl", "status", "nginx"]))
        #expect(!allows([status], ["/tmp/systemctl", "status", "nginx"]))
        #expect(!allows([status], ["systemctl", "status", "nginx", "--now"]))
        #expect(!allows([status], ["systemctl", "stop", "nginx"]))
        #expect(!allows([status], ["systemctl", "status"]))
        let anything = try rule(.allow, .anything)
        let noRemove = try rule(.deny, .argv(try ArgvPattern(["rm", "..."])))
        #expect(allows([anything, noRemove], ["ls"]))
        for program in ["rm", "/bin/rm", "/tmp/x/../rm", "./rm"] { #expect(!allows([anything, noRemove], [program, "-rf", "/"])) }
        let noDanger = try rule(.deny, .preset(.dangerous))
        #expect(allows([anything, noDanger], ["ls"]))
        #expect(!allows([anything, noDanger], ["/opt/own/tool"]))
        #expect(!allows([anything, noDanger], ["bash", "-c", "ls"]))
        #expect(CommandPolicy([anything, noDanger]).scope(Principal(kind: .user, id: "a"), .shell).isNothing)
        #expect(throws: Problem.self) { try ArgvPattern(["..."]) }
        #expect(throws: Problem.self) { try ArgvPattern([]) }
        #expect(throws: Problem.self) { try ArgvPattern(["ls", "...", "x"]) }
    }

    @Test func rulesNameClientsAndPeople() throws {
        let rules = [try rule(.allow, .anything, roles: ["ops"]), try rule(.deny, .anything, on: "env=prod")]
        let scope = CommandPolicy(rules).scope(Principal(kind: .user, id: "ada", roles: ["ops"]), .argv(["ls"]))
        #expect(scope.allows(View(labels: ["env": "test"])) && !scope.allows(View(labels: ["env": "prod"])))
        let one = PolicyRule(id: "u", .allow, .anything, users: ["ada"])
        #expect(allows([one], ["ls"]))
        #expect(CommandPolicy([one]).scope(Principal(kind: .user, id: "eve"), .argv(["ls"])).isNothing)
    }

    @Test func commandScopeJoinsRoleShellRightPolicyAndSwitch() async throws {
        let fixture = try await SecurityFixture()
        defer { fixture.close() }
        let security = fixture.security
        let admin = try await fixture.admin()
        #expect(try security.commandScope(admin, .shell).isEverything)
        let rules: JSONValueList = [["effect": "allow", "actions": ["command.run"], "selector": "env=test"]]
        _ = try await security.putRole(name: "tester", summary: "", rules: .array(rules), by: admin)
        let tester = Principal(kind: .user, id: "tess", roles: ["tester"])
        #expect(await code { _ = try security.commandScope(tester, .argv(["ls"])) } == "policy-refused")
        let added = try await security.addPolicyRule(["effect": "allow", "preset": "safe", "roles": ["tester"], "selector": "!canary"], by: admin)
        let scope = try security.commandScope(tester, .argv(["ls"]))
        #expect(scope.allows(View(labels: ["env": "test"])))
        #expect(!scope.allows(View(labels: ["env": "test", "canary": ""])))
        #expect(!scope.allows(View(labels: ["env": "prod"])))
        #expect(await code { _ = try security.commandScope(tester, .argv(["rm"])) } == "policy-refused")
        #expect(await code { _ = try security.commandScope(tester, .shell) } == "forbidden")
        #expect(await code { _ = try security.commandScope(Principal(kind: .user, id: "v", roles: ["viewer"]), .argv(["ls"])) } == "forbidden")

        security.stopCommands(exceptRoles: ["administrator"])
        #expect(await code { _ = try security.commandScope(tester, .argv(["ls"])) } == "commands-stopped")
        #expect(await code { _ = try security.commandScope(admin, .argv(["ls"])) } == nil)
        security.stopCommands(exceptRoles: nil)
        try await security.deletePolicyRule(added.id, by: admin)
        #expect(await code { _ = try security.commandScope(tester, .argv(["ls"])) } == "policy-refused")
        #expect(await code { try await security.deletePolicyRule(added.id, by: admin) } == "not-found")
        #expect(try await fixture.audited("policy.write") == 1)
    }
}

private typealias JSONValueList = [JSONValue]
