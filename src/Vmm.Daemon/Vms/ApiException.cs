using Vmm.Contracts.Rest;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>A request that cannot be carried out; the API turns it into an error answer as it is.</summary>
public sealed class ApiException : Exception
{
    /// <summary>Creates the error.</summary>
    public ApiException(
        int status, string code, string title, string detail, IReadOnlyList<FieldProblem>? errors = null, Exception? inner = null)
        : base(detail, inner) => Problem = new Problem(status, code, title, detail, errors);

    /// <summary>A spec that is not sound, with every problem.</summary>
    internal static ApiException OfSpec(SpecException e) => new(422, "spec-invalid", "the spec is not sound",
        string.Join('\n', e.Problems.Select(p => (p with { File = null }).ToString())),
        [.. e.Problems.Select(p => new FieldProblem(p.Path, p.Message, p.Line))], e);

    /// <summary>The answer.</summary>
    public Problem Problem { get; }
}
