using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Security;

/// <summary>Who makes a request.</summary>
/// <param name="Name">As the audit log names it: <c>uid:0</c>, <c>token:backup</c>, <c>certificate:alice</c>.</param>
/// <param name="Role">What it may do.</param>
/// <param name="Source">Where the request comes from: <c>unix:pid=12</c> or an address.</param>
public sealed record Principal(string Name, Role Role, string Source);

/// <summary>A client certificate that has a role.</summary>
/// <param name="Certificate"><c>sha256:HEX</c> of the whole certificate, or <c>cn:NAME</c>, or <c>ou:NAME</c> of its subject.</param>
/// <param name="Role">Its role.</param>
/// <param name="Name">Name in the audit log.</param>
public sealed record CertificateRule(string Certificate, Role Role, string Name);
