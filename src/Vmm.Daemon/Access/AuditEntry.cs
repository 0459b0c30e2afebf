using Microsoft.AspNetCore.Http;

namespace Vmm.Daemon.Access;

/// <summary>What the audit log says of one request: first that it was asked for, at last what became of it.</summary>
/// <param name="audit">The log.</param>
/// <param name="request">Number of the request.</param>
/// <param name="who">Principal.</param>
/// <param name="from">Address or process it came from.</param>
/// <param name="what">Method and path.</param>
internal sealed class AuditEntry(AuditLog audit, string request, string who, string from, string what)
{
    private bool _open;

    /// <summary>That of a request whose route is audited.</summary>
    internal static AuditEntry Of(HttpContext context) => context.Items[typeof(AuditEntry)] as AuditEntry
        ?? throw new InvalidOperationException($"{context.Request.Method} {context.Request.Path} is not audited");

    /// <summary>Writes down that it was asked for, on the disk when this returns, and keeps the entry for the request.</summary>
    /// <exception cref="Vms.ApiException">It cannot be written.</exception>
    internal void Asked(HttpContext context)
    {
        audit.Asked(request, who, from, what);
        context.Items[typeof(AuditEntry)] = this;
    }

    /// <summary>Something was opened that stays open.</summary>
    internal void Opened()
    {
        _open = true;
        audit.Note(request, "opened", who, from, what, null, null);
    }

    /// <summary>It is over.</summary>
    internal void Answered(int status, string? code)
    {
        if (_open)
        {
            audit.Note(request, "closed", who, from, what, status, code);
        }
        else
        {
            audit.Answered(request, who, from, what, status, code);
        }
    }
}
