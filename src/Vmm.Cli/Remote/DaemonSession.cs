using System.Globalization;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Remote;

/// <summary>One command that asks a daemon: the client, where answers go, and what errors become.</summary>
internal sealed class DaemonSession : IDisposable
{
    private VmmClient? _client;

    internal DaemonSession(DaemonAddress address, bool isJson, TextWriter standardOutput, TextWriter standardError)
    {
        Address = address;
        IsJson = isJson;
        Out = standardOutput;
        Errors = standardError;
    }

    internal DaemonAddress Address { get; }

    internal VmmClient Client => _client ??= Address.Open();

    internal bool IsJson { get; }

    internal TextWriter Out { get; }

    internal TextWriter Errors { get; }

    /// <inheritdoc/>
    public void Dispose() => _client?.Dispose();

    /// <summary>
    /// Carries a command out; an error is one line (a spec's are one line each) and exit code 1, or 2 when the spec or the command is not
    /// sound.
    /// </summary>
    internal async Task<int> RunAsync(Func<DaemonSession, Task<int>> command)
    {
        try
        {
            return await command(this).ConfigureAwait(false);
        }
        catch (VmmApiException e) when (e.InnerException?.InnerException is SocketException { SocketErrorCode: SocketError.AccessDenied })
        {
            Fail(SocketAccess.Explain(Address.Socket ?? "", Environment.UserName));
            return ExitCodes.Failed;
        }
        catch (VmmApiException e)
        {
            foreach (string line in e.Problem.Detail.Split('\n'))
            {
                Fail(line);
            }

            return e.Problem.Status is 422 or 400 ? ExitCodes.Usage : ExitCodes.Failed;
        }
        catch (UsageException e)
        {
            Fail(e.Message);
            return ExitCodes.Usage;
        }
        catch (OperationCanceledException)
        {
            return ExitCodes.Failed;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Fail(e.Message);
            return ExitCodes.Failed;
        }
    }

    /// <summary>Prints an object of the REST interface as it came.</summary>
    internal int Json<T>(T value, JsonTypeInfo<T> type)
    {
        Out.WriteLine(JsonSerializer.Serialize(value, type));
        return ExitCodes.Done;
    }

    /// <summary>Says in one line what was done; programs that asked for JSON get the object instead.</summary>
    internal int Done<T>(T value, JsonTypeInfo<T> type, string sentence)
    {
        if (IsJson)
        {
            return Json(value, type);
        }

        Out.WriteLine(sentence);
        return ExitCodes.Done;
    }

    internal int Table(Table table)
    {
        table.Write(Out);
        return ExitCodes.Done;
    }

    /// <summary>Labels and values, one pair a line.</summary>
    internal int Properties(params (string Label, string Value)[] rows)
    {
        int width = rows.Max(row => row.Label.Length) + 2;
        foreach ((string label, string value) in rows)
        {
            Out.WriteLine((label + ":").PadRight(width) + value);
        }

        return ExitCodes.Done;
    }

    internal void Fail(string line) => Errors.WriteLine("vmmctl: " + line);

    internal static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);

    /// <summary>Bytes in the largest binary unit that leaves at least one before the point.</summary>
    internal static string Size(ulong bytes)
    {
        string[] units = ["B", "KiB", "MiB", "GiB", "TiB"];
        double value = bytes;
        int unit = 0;
        while (value >= 1024 && unit < units.Length - 1)
        {
            value /= 1024;
            unit++;
        }

        return string.Create(CultureInfo.InvariantCulture, $"{value:0.#} {units[unit]}");
    }

    internal static string Time(DateTimeOffset time) => time.ToLocalTime().ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture);
}
