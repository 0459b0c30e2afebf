namespace Vmm.Contracts.Rest;

/// <summary>The daemon refused, or cannot be reached.</summary>
public sealed class VmmApiException : Exception
{
    /// <summary>An error answer.</summary>
    public VmmApiException(Problem problem) : base(problem.Detail) => Problem = problem;

    /// <summary>No usable answer.</summary>
    public VmmApiException(string code, string message, Exception? inner = null) : base(message, inner) =>
        Problem = new Problem(0, code, "no answer", message);

    /// <summary>What the daemon said; status 0 when it said nothing.</summary>
    public Problem Problem { get; }
}
