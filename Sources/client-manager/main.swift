import Glibc

exit(CoreCommandLine.run(Array(CommandLine.arguments.dropFirst())))
