import Program

BenchCommand.run(Array(CommandLine.arguments.dropFirst()))
