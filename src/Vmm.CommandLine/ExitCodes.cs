namespace Vmm.CommandLine;

/// <summary>What vmmctl's own exit codes mean; a guest's debug-exit code takes their place.</summary>
public static class ExitCodes
{
    /// <summary>Done.</summary>
    public const int Done = 0;

    /// <summary>Failed; stderr says why.</summary>
    public const int Failed = 1;

    /// <summary>Bad usage: an option or a spec is wrong.</summary>
    public const int Usage = 2;
}
