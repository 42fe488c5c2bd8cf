import Glibc
import OperatorClient

exit(Cmctl.main(arguments: Array(CommandLine.arguments.dropFirst())))
