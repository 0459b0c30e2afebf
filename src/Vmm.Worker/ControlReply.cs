using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Worker;

/// <summary>
/// The answer to one request. It goes to the connection that asked, or nowhere: a daemon that came meanwhile counts its requests anew. Any
/// thread.
/// </summary>
internal sealed class ControlReply(ControlPort port, ControlFrame frame)
{
    private readonly PacketSocket? _asker = port.Connection;

    /// <summary>The request.</summary>
    internal ControlFrame Frame => frame;

    /// <summary>It is done.</summary>
    internal void Ok() => Send(ControlKinds.Ok, null);

    /// <summary>It is done; this came of it.</summary>
    internal void Ok<T>(T body, JsonTypeInfo<T> type) => Send(ControlKinds.Ok, ControlCodec.Body(body, type));

    /// <summary>It is done; this is the console, or another stream that was asked for.</summary>
    internal void Ok(FileDescriptorHandle stream) => Send(ControlKinds.Ok, null, stream);

    /// <summary>Carries something out that answers; what fails is answered as an error.</summary>
    internal void Guard(Action carryOut)
    {
        try
        {
            carryOut();
        }
        catch (RequestException refused)
        {
            Fail(refused.Code, refused.Message);
        }
#pragma warning disable CA1031 // A request that meets an error of ours must not take the VM with it.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Fail(ControlCodes.Internal, $"{cause.GetType().Name}: {cause.Message}");
        }
    }

    private void Fail(string code, string message) =>
        Send(ControlKinds.Error, ControlCodec.Body(new ControlError(code, message), ControlJson.Default.ControlError));

    private void Send(string kind, JsonElement? body, FileDescriptorHandle? stream = null) =>
        port.Send(frame.Id, kind, body, stream, _asker);
}
