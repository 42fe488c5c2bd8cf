import Agent
import Glibc

exit(AgentProgram.main(CommandLine.arguments))
