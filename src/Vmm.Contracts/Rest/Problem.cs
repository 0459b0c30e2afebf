namespace Vmm.Contracts.Rest;

/// <summary>An error answer (RFC 9457, application/problem+json).</summary>
/// <param name="Status">HTTP status.</param>
/// <param name="Code">Stable, for programs: <c>vm-not-found</c>, <c>wrong-state</c>, … (docs/rest.md lists them).</param>
/// <param name="Title">The kind of error in words.</param>
/// <param name="Detail">What happened to which object, and what to do.</param>
/// <param name="Errors">Every problem of a spec; null for other errors.</param>
public sealed record Problem(int Status, string Code, string Title, string Detail, IReadOnlyList<FieldProblem>? Errors = null);

/// <summary>One thing wrong with a spec.</summary>
/// <param name="Field">The field, e.g. <c>disks[0].path</c>; empty for the whole document.</param>
/// <param name="Message">What is wrong and what would be right.</param>
/// <param name="Line">Line of the document from 1; 0 when unknown.</param>
public sealed record FieldProblem(string Field, string Message, long Line);
