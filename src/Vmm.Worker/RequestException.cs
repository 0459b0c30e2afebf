namespace Vmm.Worker;

/// <summary>A request cannot be done; becomes an error answer.</summary>
internal sealed class RequestException(string code, string message, Exception? cause = null) : Exception(message, cause)
{
    internal string Code { get; } = code;
}
