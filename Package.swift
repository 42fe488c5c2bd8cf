// swift-tools-version: 6.2
import PackageDescription

// The map of Docs/architecture.md: "may import" is exact, Tests/MapTests checks the sources against it.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
]

/// Nothing that ships uses regular expressions; their two libraries would cost every process a megabyte. Functions stand in
/// sections of their own, so that the linker can leave out and lay together (`laidTogether`).
let lean: [SwiftSetting] = strict + [
    .unsafeFlags(["-Xfrontend", "-disable-implicit-string-processing-module-import"]),
    .unsafeFlags(["-Xfrontend", "-function-sections"], .when(configuration: .release)),
]

func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: lean)
}

func program(_ name: String, _ dependencies: [Target.Dependency], linker: [LinkerSetting] = []) -> Target {
    .executableTarget(name: name, dependencies: dependencies, swiftSettings: lean, linkerSettings: linker)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: strict, linkerSettings: sharedOpenSSL)
}

/// COpenSSL's module map names no library: each program says how it carries OpenSSL.
let sharedOpenSSL: [LinkerSetting] = [.linkedLibrary("ssl"), .linkedLibrary("crypto")]

/// Each program carries Swift's and C++'s runtime inside: less resident memory, a faster start, and no search path that
/// could find a stranger's runtime (Docs/decisions/0004-own-runtime.md). `.make/link` shadows libstdc++ for the linker;
/// lld, because gold does not follow it. Release only: the tests link the core's module, and XCTest is shared.
let ownRuntime: [LinkerSetting] = sharedOpenSSL + [
    .unsafeFlags([
        "-static-stdlib", "-use-ld=lld", "-L", "\(Context.packageDirectory)/.make/link",
        "-Xclang-linker", "-static-libgcc", "-Xlinker", "--as-needed", "-Xlinker", "--no-export-dynamic",
    ], .when(configuration: .release))
]

/// The core's functions that run stand side by side, and its relocations take the short form that glibc has known since
/// 2.36 (Debian 12): each is a megabyte and more of resident memory (Docs/decisions/0004-own-runtime.md).
let laidTogether: [LinkerSetting] = [
    .unsafeFlags([
        "-Xlinker", "-z", "-Xlinker", "pack-relative-relocs",
        "-Xlinker", "--symbol-ordering-file=\(Context.packageDirectory)/.make/link/order", "-Xlinker", "--no-warn-symbol-ordering",
    ], .when(configuration: .release))
]

/// The agent is one file for any x86_64 Linux: Swift's runtime, OpenSSL and the C++ runtime inside, only glibc from
/// outside. `.make/link` shadows libstdc++ for the linker; lld, because gold does not follow it.
let selfContained: [LinkerSetting] = [
    .unsafeFlags([
        "-static-stdlib", "-use-ld=lld", "-L", "\(Context.packageDirectory)/.make/link",
        "-Xclang-linker", "-static-libgcc", "-Xlinker", "-l:libssl.a", "-Xlinker", "-l:libcrypto.a",
        "-Xlinker", "--as-needed", "-Xlinker", "--no-export-dynamic",
    ])
]

let package = Package(
    name: "client-manager",
    targets: [
        .systemLibrary(name: "COpenSSL", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .target(name: "CPluginABI"),
        .target(name: "CLinux", cSettings: [.unsafeFlags(["-Wall", "-Wextra"])]),
        .target(name: "CFloor", dependencies: ["COpenSSL"], cSettings: [.unsafeFlags(["-O2", "-Wall", "-Wextra"])]),

        library("JSON", []),
        library("Program", ["JSON"]),
        library("Crypto", ["COpenSSL"]),
        library("Reactor", ["CLinux"]),
        library("System", ["CLinux", "Reactor"]),
        library("Transport", ["Reactor", "System", "Crypto", "COpenSSL", "Program"]),
        library("AgentProtocol", ["JSON", "Crypto", "Program"]),
        library("Kernel", [
            "AgentProtocol", "Transport", "System", "Crypto", "JSON", "Reactor", "CSQLite", "Program",
        ]),
        library("Web", ["Kernel", "Transport", "JSON", "Reactor", "Program"]),
        library("PluginHost", [
            "Web", "Kernel", "Transport", "System", "Crypto", "JSON", "Reactor", "Program", "CLinux", "CPluginABI",
        ]),
        library("PluginCheck", ["PluginHost", "CPluginABI", "JSON"]),
        library("PluginKit", ["CPluginABI", "JSON"]),
        library("API", ["Web", "Kernel", "PluginHost", "JSON", "Program"]),
        library("Agent", ["AgentProtocol", "Transport", "System", "Crypto", "JSON", "Reactor", "Program"]),
        library("OperatorClient", ["Transport", "System", "Crypto", "JSON", "Reactor", "Program"]),

        program(
            "client-manager",
            ["API", "PluginHost", "PluginCheck", "Web", "Kernel", "Transport", "System", "Crypto", "Reactor", "JSON", "Program"],
            linker: ownRuntime + laidTogether),
        program("cm-agent", ["Agent", "Reactor", "JSON", "Program"], linker: selfContained),
        program("cm-swarm", ["Agent", "AgentProtocol", "Reactor", "JSON", "Program"], linker: ownRuntime),
        program("cmctl", ["OperatorClient", "Program"], linker: ownRuntime),
        program(
            "cm-bench",
            ["OperatorClient", "Transport", "System", "Crypto", "JSON", "Reactor", "Program", "CFloor"],
            linker: ownRuntime),

        tests("JSONTests", ["JSON"]),
        tests("ProgramTests", ["Program", "JSON"]),
        tests("CryptoTests", ["Crypto"]),
        tests("ReactorTests", ["Reactor"]),
        tests("SystemTests", ["System", "Reactor", "CLinux"]),
        tests("TransportTests", ["Transport", "Reactor", "Crypto"]),
        tests("AgentProtocolTests", ["AgentProtocol", "JSON", "Crypto", "Program"]),
        tests("KernelTests", [
            "Kernel", "Agent", "Transport", "AgentProtocol", "JSON", "Crypto", "Reactor", "Program", "System",
        ]),
        tests("WebTests", ["Web", "API", "Kernel", "Transport", "JSON", "Reactor", "Program"]),
        tests("PluginHostTests", ["PluginHost", "JSON", "System"], exclude: ["Plugins"]),
        tests("AgentTests", ["Agent", "AgentProtocol", "CLinux", "Crypto", "JSON", "Program", "Reactor", "System", "Transport"]),
        tests("OperatorClientTests", ["OperatorClient", "JSON", "Crypto", "System"]),
        tests(
            "CoreTests",
            ["client-manager", "PluginHost", "Crypto", "Kernel", "OperatorClient", "Web", "Program", "Reactor", "System"]),
        // State machines and readers of plugins, by links to their sources: the plugins themselves are built from the kit alone.
        tests("SecretsSyncTests", []),
        tests("SSHInstallerTests", ["PluginKit", "JSON"]),
        tests("MapTests", []),
    ]
)
