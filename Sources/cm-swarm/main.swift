import Agent
import Glibc
import Program
import Reactor

let allowed: [Flag] = [
    .option("server", "URL[*WEIGHT][,…]", "the core, or several"),
    .option("enroll-token", "T", "an enrollment token with enough uses; else CM_ENROLL_TOKEN"),
    .option("pin", "FINGERPRINT", "the core's fingerprint; the token's own by default", repeated: true),
    .option("agents", "N", "how many agents, 1 to 1000000"),
    .option("duration", "S", "seconds until the report; without it, until SIGINT or SIGTERM"),
    .option("loops", "N", "threads, 2 by default"),
    .toggle("storm", "all agents connect at one moment"),
    .option("drop-rate", "R", "share of the agents that lose their connection each second, 0 to 1"),
    .toggle("slow", "each order takes up to two seconds"),
    .toggle("via-proxy", "a proxy ends TLS in front of the core"),
    .option("release-key", "FILE", "PEM of the public key whose releases the agents take; without it none"),
    .toggle("help", "this text"),
]

exit(SwarmProgram.run(Array(CommandLine.arguments.dropFirst()), allowed: allowed))
