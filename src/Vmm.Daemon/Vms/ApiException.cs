using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Vms;

/// <summary>A request that cannot be carried out; the API turns it into an error answer as it is.</summary>
public sealed class ApiException : Exception
{
    /// <summary>Creates the error.</summary>
    public ApiException(int status, string code, string title, string detail, IReadOnlyList<FieldProblem>? errors = null, Exception? inner = null)
        : base(detail, inner) => Problem = new Problem(status, code, title, detail, errors);

    /// <summary>The answer.</summary>
    public Problem Problem { get; }
}
