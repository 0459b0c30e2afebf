namespace Vmm.Cli.Remote;

/// <summary>The command line cannot be carried out as it is: exit code 2.</summary>
internal sealed class UsageException(string message) : Exception(message);
