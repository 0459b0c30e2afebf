using System.Net.Sockets;
using System.Text.Json;

namespace Vmm.Perf;

/// <summary>QEMU's machine protocol over its unix socket, as far as the benchmarks need it.</summary>
internal sealed class QmpClient : IDisposable
{
    private readonly Socket _socket;
    private readonly StreamReader _from;
    private readonly StreamWriter _to;

    /// <summary>Connects as soon as the socket is there.</summary>
    /// <exception cref="InvalidOperationException">It is not within half a minute.</exception>
    internal QmpClient(string path)
    {
        _socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        for (int tries = 0; ; tries++)
        {
            try
            {
                _socket.Connect(new UnixDomainSocketEndPoint(path));
                break;
            }
            catch (SocketException) when (tries < 6000)
            {
                Thread.Sleep(5);
            }
            catch (SocketException cause)
            {
                _socket.Dispose();
                throw new InvalidOperationException($"no QEMU at {path}: {cause.Message}", cause);
            }
        }

        NetworkStream stream = new(_socket);
        (_from, _to) = (new StreamReader(stream), new StreamWriter(stream) { AutoFlush = true });
        _ = _from.ReadLine(); // the greeting
        _ = Do("qmp_capabilities");
    }

    /// <summary>Carries out a command; events that come before its answer are left out.</summary>
    /// <exception cref="InvalidOperationException">It was refused.</exception>
    internal JsonElement Do(string command, string arguments = "{}")
    {
        _to.WriteLine($$"""{"execute":"{{command}}","arguments":{{arguments}}}""");
        while (_from.ReadLine() is { } line)
        {
            JsonElement answer = JsonElement.Parse(line);
            if (answer.TryGetProperty("return", out JsonElement value))
            {
                return value;
            }

            if (answer.TryGetProperty("error", out JsonElement error))
            {
                throw new InvalidOperationException($"qmp {command}: {error}");
            }
        }

        throw new InvalidOperationException($"qmp {command}: QEMU ended");
    }

    public void Dispose()
    {
        _from.Dispose();
        _to.Dispose();
        _socket.Dispose();
    }
}
