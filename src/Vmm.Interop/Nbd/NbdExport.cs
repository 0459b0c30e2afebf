namespace Vmm.Interop;

/// <summary>What a server announced of its export.</summary>
/// <param name="Size">Bytes; negative when it claimed more than a signed number holds.</param>
/// <param name="ReadOnly">It refuses writes.</param>
/// <param name="CanFlush">It has a volatile cache, and takes flushes.</param>
/// <param name="CanFua">It takes writes that are stable when they are answered.</param>
/// <param name="CanTrim">It takes trims.</param>
/// <param name="CanZero">It writes zeros by itself.</param>
/// <param name="MinimumBlock">Every range is whole blocks of so many bytes; 0 when it did not say.</param>
/// <param name="PreferredBlock">Ranges of whole blocks of so many bytes are best; 0 when it did not say.</param>
/// <param name="MaximumPayload">Most bytes of one read or write; 0 when it did not say.</param>
public readonly record struct NbdExport(long Size, bool ReadOnly, bool CanFlush, bool CanFua, bool CanTrim, bool CanZero,
    long MinimumBlock, long PreferredBlock, long MaximumPayload);

/// <summary>TLS of a connection. The library reads the files when the connection begins.</summary>
/// <param name="Certificates">Folder with ca-cert.pem and, for a server that asks, client-cert.pem and client-key.pem.</param>
/// <param name="PskFile">File of pre-shared keys, in place of certificates.</param>
/// <param name="UserName">Whose key of that file.</param>
/// <param name="VerifyPeer">The server's certificate is to be checked. The library does that only for connections that it makes itself:
/// here it is refused with certificates.</param>
public sealed record NbdTls(string? Certificates, string? PskFile, string? UserName, bool VerifyPeer = true);

/// <summary>Where a connection is.</summary>
public enum NbdState
{
    /// <summary>Client and server are introducing themselves.</summary>
    Connecting,

    /// <summary>It takes commands.</summary>
    Connected,

    /// <summary>It is over: the server closed it, or broke the protocol.</summary>
    Over,
}

/// <summary>What a command does.</summary>
public enum NbdCommand
{
    /// <summary>Reads into memory.</summary>
    Read,

    /// <summary>Writes memory.</summary>
    Write,

    /// <summary>Makes stable what was answered before.</summary>
    Flush,

    /// <summary>The content of a range is no longer needed.</summary>
    Trim,

    /// <summary>A range reads as zeros.</summary>
    Zero,
}

/// <summary>Flags of commands, as the protocol numbers them.</summary>
[Flags]
public enum NbdFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>Stable when answered.</summary>
    Fua = 1,

    /// <summary>Zeros keep their space.</summary>
    NoHole = 2,
}
